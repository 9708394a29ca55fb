"""Bytes that a compiled program moves, counted in its HLO text: memory and collectives.

XLA's own ``cost_analysis`` counts the body of a loop once. Here every instruction counts as often
as the loops around it run; a loop's trips are the largest integer in its condition, which for a
``scan`` is its length and for decoding the longest response.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_BITS = {"pred": 8, "token": 0, "opaque": 0}  # the others end in their bits: bf16, s32, f8e4m3
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|true_computation|false_computation)=%([\w.\-]+)")
_FREE = {
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
# Look through these to whoever really reads or writes.
_ALIASES = {"bitcast", "reshape", "get-tuple-element", "copy-done"}


class Instruction(NamedTuple):
    """One line of HLO.

    Attributes:
        name: without the percent sign.
        type: of the result, with layout.
        op: for example ``fusion``.
        operands: their names.
        rest: attributes, as text.
        root: whether it is its computation's result.
    """

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    rest: str
    root: bool


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one device moves.

    Attributes:
        memory: bytes read from and written to the chip's large memory (HBM).
        collectives: bytes received from other devices, by kind of collective.
    """

    memory: float = 0.0
    collectives: Mapping[str, float] = dataclasses.field(default_factory=dict)


def _element_bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    digits = re.match(r"[a-z]+(\d+)", kind)
    return int(digits.group(1)) if digits else 0


def type_bytes(text: str, *, large_memory_only: bool = False) -> int:
    """Bytes of a type, tuples summed.

    Args:
        text: as in HLO.
        large_memory_only: leave out arrays in another memory space (``S(1)`` is the chip's own).

    >>> type_bytes("(f32[2,3]{1,0:T(8,128)S(1)}, bf16[4]{0})")
    32
    >>> type_bytes("(f32[2,3]{1,0:T(8,128)S(1)}, bf16[4]{0})", large_memory_only=True)
    8
    """
    return sum(_arrays(text, large_memory_only))


def _arrays(text: str, large_memory_only: bool = False) -> Iterator[int]:
    for kind, dims, layout in _ARRAY.findall(text):
        if large_memory_only and re.search(r"S\([1-9]\)", layout):
            continue
        count = 1
        for size in filter(None, dims.split(",")):
            count *= int(size)
        yield count * _element_bits(kind) // 8


def _closing(text: str, start: int) -> int:
    """Position after the parenthesis that closes the one at ``start``."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"unbalanced HLO line: {text[:120]!r}")


def parse_line(line: str) -> Instruction | None:
    """One instruction; None for a line that is none."""
    head, found, rest = line.strip().partition(" = ")
    if not found:
        return None
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    kind, call = rest[:end], rest[end:].lstrip()
    opening = call.find("(")
    if opening < 0:
        return None
    closing = _closing(call, opening)
    operands = tuple(_NAME.findall(call[opening:closing]))
    if call[:opening] in ("parameter", "constant"):  # the number matters
        operands = (call[opening + 1 : closing - 1],)
    root, name = head.startswith("ROOT "), head.removeprefix("ROOT ").lstrip("%")
    return Instruction(name, kind, call[:opening], operands, call[closing:], root)


class Program:
    """The computations of one HLO module."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        body: dict[str, Instruction] | None = None
        for line in text.splitlines():
            if (header := _HEADER.match(line)) is not None:
                body = self.computations.setdefault(header.group(2), {})
                self.entry = header.group(2) if header.group(1) else self.entry
            elif line.startswith("}"):
                body = None
            elif body is not None and (instruction := parse_line(line)) is not None:
                body[instruction.name] = instruction
        self._memory_of = functools.cache(self._computation_memory)

    def total(self) -> Traffic:
        """Traffic of one run of the whole program, on one device."""
        return Traffic(self._memory_of(self.entry), self._collectives(self.entry, frozenset()))

    def _loop(self, instruction: Instruction) -> tuple[str, int]:
        """Body and trips of a ``while``."""
        body = re.search(r"body=%([\w.\-]+)", instruction.rest)
        condition = re.search(r"condition=%([\w.\-]+)", instruction.rest)
        if body is None or condition is None:
            raise ValueError(f"a loop without body or condition: {instruction.rest[:120]!r}")
        return body.group(1), self.trips(condition.group(1))

    def _computation_memory(self, name: str) -> float:
        """Bytes of the large memory that one run of a computation moves."""
        body = self.computations[name]
        return sum(self._executed(instruction, body) for instruction in body.values())

    def _executed(self, instruction: Instruction, scope: Mapping[str, Instruction]) -> float:
        """Bytes of the large memory that an instruction moves, with all that it calls."""
        op = instruction.op
        if op == "while":
            body, trips = self._loop(instruction)
            return trips * self._memory_of(body)
        asynchronous = op.endswith("-start") and "calls=" in instruction.rest
        if op in ("call", "conditional") or asynchronous:
            # of a conditional's branches the costliest
            return max((self._memory_of(name) for name in self._called(instruction)), default=0.0)
        return self._memory(instruction, scope)

    def _called(self, instruction: Instruction) -> list[str]:
        names = _CALLED.findall(instruction.rest)
        branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
        names += _NAME.findall(branches.group(1)) if branches else []
        return [name for name in names if name in self.computations]

    def trips(self, condition: str) -> int:
        """How often a loop with this condition runs, at most."""
        counts = [1]
        for instruction in self.computations[condition].values():
            if instruction.op == "constant" and re.match(r"[su]\d+\[\]", instruction.type):
                counts.append(int(instruction.operands[0]))
            counts += [self.trips(called) for called in self._called(instruction)]
        return max(counts)

    def _collectives(self, name: str, outside: frozenset) -> dict[str, float]:
        """Bytes received by one run of a computation, with all that it calls, by kind.

        The TPU compiler writes an asynchronous collective as several instructions of the same
        channel (its start, its steps, perhaps inside another loop, and its end): those count once,
        where the outermost is.
        """
        seen: dict[tuple, tuple[str, float]] = {}
        loops: list[Instruction] = []

        def visit(name: str) -> None:
            for instruction in self.computations[name].values():
                kind = instruction.op.removesuffix("-start")
                if kind in COLLECTIVES:
                    channel = re.search(r"channel_id=(\d+)", instruction.rest)
                    shape = re.sub(r"\{[^}]*\}", "", instruction.type)
                    key = (kind, shape, channel.group(1) if channel else instruction.name)
                    if key not in outside:
                        seen[key] = (kind, received_bytes(instruction))
                elif instruction.op == "while":
                    loops.append(instruction)
                else:
                    for called in self._called(instruction):
                        visit(called)

        visit(name)
        totals: dict[str, float] = {}
        for kind, count in seen.values():
            totals[kind] = totals.get(kind, 0.0) + count
        for loop in loops:
            body, trips = self._loop(loop)
            for kind, count in self._collectives(body, outside | frozenset(seen)).items():
                totals[kind] = totals.get(kind, 0.0) + trips * count
        return totals

    def _memory(self, instruction: Instruction, scope: Mapping[str, Instruction]) -> float:
        """Bytes of the large memory that an instruction reads and writes."""
        op = instruction.op
        if op in _FREE or op.endswith("-done") or op.endswith("-update"):
            return 0.0
        if op == "custom-call" and re.search(
            r'target="(Allocate|ConcatBitcast|Async|AssumeGather|Sharding)', instruction.rest
        ):
            return 0.0
        out = type_bytes(instruction.type, large_memory_only=True)
        if op.endswith("-start") and op.removesuffix("-start") in ("copy", "slice"):
            return float(out)  # a tuple of target and source
        if op in ("dynamic-slice", "slice", "gather"):
            return 2.0 * out
        inputs = [scope[name] for name in instruction.operands if name in scope]
        if op in ("dynamic-update-slice", "scatter"):
            update = inputs[1 if op == "dynamic-update-slice" else -1]
            return 2.0 * type_bytes(update.type, large_memory_only=True)
        if op != "fusion":
            return out + sum(float(type_bytes(i.type, large_memory_only=True)) for i in inputs)
        called = self._called(instruction)[0]
        read = sum(self._read(called, place) for place in range(len(instruction.operands)))
        return read + (self._written(called) if out else 0.0)

    def _read(self, fused: str, place: int) -> float:
        """Bytes that a fused computation reads of its parameter number ``place``."""
        body = self.computations[fused]
        number = str(place)
        for parameter in body.values():
            if parameter.op == "parameter" and parameter.operands == (number,):
                return self._used(fused, parameter)
        return 0.0

    def _used(self, fused: str, value: Instruction) -> float:
        whole = float(type_bytes(value.type, large_memory_only=True))
        if whole == 0.0:
            return 0.0
        used = 0.0
        for user in self.computations[fused].values():
            if value.name not in user.operands or user.op == "parameter":
                continue
            place = user.operands.index(value.name)
            if user.op in ("dynamic-slice", "slice", "gather") and place == 0:
                used += type_bytes(user.type)
            elif user.op == "dynamic-update-slice" and place == 0:
                used += 0.0  # written in place
            elif user.op == "fusion" and self._called(user):
                used += self._read(self._called(user)[0], place)
            elif user.op in _ALIASES:
                used += self._used(fused, user)
            else:
                return whole
        return min(used, whole)

    def _written(self, fused: str) -> float:
        """Bytes that a fused computation writes."""
        body = self.computations[fused]
        root = next(instruction for instruction in body.values() if instruction.root)
        return self._stored(fused, root)

    def _stored(self, fused: str, value: Instruction) -> float:
        body = self.computations[fused]
        if value.op == "tuple":
            return sum(self._stored(fused, body[name]) for name in value.operands if name in body)
        if value.op in _ALIASES and value.operands[0] in body:
            return self._stored(fused, body[value.operands[0]])
        if value.op == "dynamic-update-slice":
            return float(type_bytes(body[value.operands[1]].type))
        if value.op == "fusion" and self._called(value):
            return self._written(self._called(value)[0])
        if value.op == "parameter":
            return 0.0
        return float(type_bytes(value.type, large_memory_only=True))


def group_size(rest: str) -> int:
    """Devices of one replica group.

    >>> group_size("replica_groups={{0,2},{1,3}}, dimensions={0}")
    2
    >>> group_size("replica_groups=[4,16]<=[64], dimensions={0}")
    16
    >>> group_size("replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_1'}, channel_id=3")
    8
    """
    if (found := re.search(r"replica_groups=\{\{([0-9,]+)\}", rest)) is not None:
        return found.group(1).count(",") + 1
    if (found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest)) is not None:
        return int(found.group(1))
    found = re.search(r"replica_groups=mesh\[([^\]]*)\](?:[^{]*)\{([^}]*)\}", rest)
    if found is None:
        return 1
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", found.group(1)))
    count = 1
    for axis in re.findall(r"'([^']+)'", found.group(2)):
        count *= int(sizes.get(axis, 1))
    return count


def received_bytes(instruction: Instruction) -> float:
    """Bytes that a device receives in a collective, on a ring.

    Of an all-gather all but its own part; of an all-reduce twice that (reduce-scatter, then
    all-gather).
    """
    kind = instruction.op.removesuffix("-start")
    arrays = list(_arrays(instruction.type))
    if kind in ("all-gather", "collective-permute") and instruction.op.endswith("-start"):
        size = max(arrays, default=0)  # a tuple of source and target
    else:
        size = sum(arrays)
    if kind == "collective-permute":
        return float(size)
    ways = max(group_size(instruction.rest), 1)
    share = (ways - 1) / ways
    factor = {"all-reduce": 2 * share, "reduce-scatter": ways - 1.0}.get(kind, share)
    return size * factor
