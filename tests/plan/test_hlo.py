"""Bytes counted in HLO text, in the form that the TPU compiler writes, against a count by hand.

The text is a scan of 4 layers inside a decoding loop of at most 100 steps.
"""

from pathlib import Path

import pytest

from dpsjax.plan import hlo


@pytest.fixture(scope="module")
def program():
    return hlo.Program((Path(__file__).parent / "step.hlo.txt").read_text())


def test_loops_run_as_often_as_their_conditions_say(program):
    assert program.trips("layer_condition") == 4
    assert program.trips("decode_condition") == 100  # its bound hides in a fusion


def test_collectives_count_as_often_as_they_run(program):
    array = 8 * 128
    # an all-reduce of four devices receives 2 * 3/4 of the array, in 100 * 4 layers
    # an all-gather 3/4 of its result in each decoding step; its part inside the layers' loop
    # belongs to the same channel and moves nothing more
    assert program.total().collectives == {
        "all-reduce": 100 * 4 * 2 * 0.75 * array * 4,
        "all-gather": 100 * 0.75 * array * 2,
        "collective-permute": 4 * array * 4,
    }


def test_memory_is_what_leaves_and_enters_the_large_one(program):
    array = 8 * 128 * 4
    entry = 4 * array + 2 * 4 * array  # copy-start reads; the permutation reads and writes
    write = array + array  # a piece is read, and written in place: not the whole cache
    gathered = 2 * 128 * 2  # read; the result stays on the chip, and so does what layers make
    layer = array + gathered  # one of four slices of the stack, and the asynchronous step's input
    scalars = 400 * 4 + 100 * (4 + 1 + 4)  # counters and flags, a few bytes each
    total = program.total().memory
    exact = entry + 100 * (write + gathered + 4 * layer)
    assert exact <= total <= exact + 20 * scalars


def test_types_and_groups():
    assert hlo.type_bytes("(s4[8]{0}, pred[3]{0}, f8e4m3fn[5]{0}, token[])") == 4 + 3 + 5
    assert hlo.group_size("channel_id=1") == 1
    assert hlo.group_size("replica_groups=[2,128]<=[128,2]T(1,0), dimensions={3}") == 128
    line = hlo.parse_line(
        "  %ag = (bf16[2,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%x), channel_id=1, "
        "replica_groups=[1,8]<=[8]"
    )
    assert line.op == "all-gather-start" and line.operands == ("x",)
    assert hlo.received_bytes(line) == 16 * 8 * 2 * 7 / 8
    line = hlo.parse_line("  ROOT %rs = f32[4]{0} reduce-scatter(%x), replica_groups={{0,1,2,3}}")
    assert line.root and hlo.received_bytes(line) == 4 * 4 * 3


def test_a_loop_without_a_body_is_refused():
    with pytest.raises(ValueError, match="loop without body"):
        hlo.Program("ENTRY %m () -> s32[] {\n  %w = s32[] while(%x)\n}\n").total()
