"""Tokenizers and chat templates of checkpoint folders, against transformers where it is there."""

import datetime
import json
import os
import subprocess
import sys

import pytest

from dpsjax.policy import left_pad, load_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="needs the extra: hf")
pytest.importorskip("jinja2", reason="needs the extra: hf")

TEMPLATE = """{%- for m in messages %}
<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""
USER = [{"role": "user", "content": " hé <b> "}]


def _write(path, values):
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Five words and four special tokens."""
    words = ["[UNK]", "<end>", "<pad>", "hello", "world", "<user>", "<assistant>"]
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<end>", "<pad>", "<user>", "<assistant>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {"eos_token": {"content": "<end>"}, "pad_token": "<pad>", "chat_template": TEMPLATE}
    _write(tmp_path / "tokenizer_config.json", settings)
    _write(tmp_path / "generation_config.json", {"eos_token_id": [2, 1]})
    return tmp_path


def write_bytes(folder, change=None, **settings):
    """A byte-level BPE tokenizer: every text has its own tokens, ids have a hole at 256 to 299."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary |= {"37": 300, "<bos>": 301, "<end>": 302, "<pad>": 303}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("3", "7")]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<bos>", "<end>", "<pad>"])
    if change is not None:
        change(backend)
    backend.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "<end>", "pad_token": "<pad>", "bos_token": "<bos>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    _write(folder / "tokenizer_config.json", special | kind | settings)
    return folder


def test_tokenizer_reads_stop_tokens_and_renders_its_template(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("hello world") == [3, 4]
    assert tokenizer.decode([3, 4, 1]) == "hello world"
    assert (tokenizer.stop_ids, tokenizer.eos_id, tokenizer.pad_id) == ((2, 1), 2, 2)
    text = tokenizer.chat([{"role": "user", "content": " hello "}])
    assert text == "<user>hello<end>\n<assistant>"
    assert tokenizer.encode(text) == [5, 3, 1, 6]
    (folder / "chat_template.jinja").write_text("{{ enable }}", encoding="utf-8")
    assert load_tokenizer(folder).chat([], enable=7) == "7"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% if %}", "chat template"),
        ("{{ cycler.__init__.__globals__.os.environ }}", "unsafe|undefined"),
        ("{% include '/etc/passwd' %}", "chat template"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1 + 'a' }}", "chat template"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
    ],
)
def test_templates_run_in_a_sandbox(folder, template, message):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder).chat([{"role": "user", "content": "x"}])


def test_tokenizer_errors_are_named(folder):
    (folder / "chat_template.jinja").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(folder).chat([])
    (folder / "chat_template.jinja").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"chat_template\.jinja: not UTF-8"):
        load_tokenizer(folder)
    (folder / "chat_template.jinja").unlink()
    _write(folder / "tokenizer_config.json", {"eos_token": "<gone>"})
    with pytest.raises(ValueError, match="eos_token '<gone>' is not in"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "generation_config.json").unlink()
    with pytest.raises(ValueError, match="no file names an end-of-sequence token"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tokenizer_config.json", "chat_template"),
        ("tokenizer_config.json", "eos_token"),
        ("tokenizer_config.json", "additional_special_tokens"),
        ("special_tokens_map.json", "pad_token"),
        ("generation_config.json", "eos_token_id"),
        ("config.json", "eos_token_id"),
    ],
)
@pytest.mark.parametrize("value", [3.5, [None, 3.5], [{"a": 1}], {"content": 7}, "x", True])
def test_any_json_in_a_tokenizer_is_refused_by_name_or_works(file, name, value, folder):
    (folder / "generation_config.json").unlink()
    path = folder / file
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    _write(path, values | {name: value})
    try:
        tokenizer = load_tokenizer(folder)
    except ValueError as error:
        assert name in str(error) and str(folder) in str(error)
        return
    assert isinstance(tokenizer.template, str) and tokenizer.stop_ids


def test_a_template_that_looks_for_more_finds_nothing(folder):
    (folder / "chat_template.jinja").write_text(
        "[{{ ''.__class__ }}{{ '{0.__class__}'.format(1) }}]", encoding="utf-8"
    )
    assert load_tokenizer(folder).chat([{"role": "user", "content": "x"}]) == "[]"


def _train_state(backend):
    """What a tokenizer may keep from its training."""
    backend.enable_truncation(32)
    backend.enable_padding(length=40)
    backend.model.dropout = 0.9


def test_stored_truncation_padding_and_dropout_do_not_act(tmp_path):
    text = "the target is 3737373737 " * 12
    tokenizer = load_tokenizer(write_bytes(tmp_path, _train_state))
    ids = tokenizer.encode(text)
    assert len(ids) == 12 * (15 + 5) and ids.count(300) == 12 * 5
    assert tokenizer.decode(ids) == text


def test_ids_with_holes_are_all_known(tmp_path):
    tokenizer = load_tokenizer(write_bytes(tmp_path))
    ids = tokenizer.encode("3*7+37<pad>")
    assert tokenizer.vocab_size == 304 == max(ids) + 1
    assert tokenizer.decode(ids) == "3*7+37"
    assert tokenizer.decode([ids[0], 270, ids[2], 5000]) == "37"  # ids of nothing


def _open_with_bos(backend):
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <end>", special_tokens=[("<bos>", 301), ("<end>", 302)]
    )


def test_a_plain_text_opens_as_the_checkpoint_opens_it(tmp_path):
    write_bytes(tmp_path, _open_with_bos)
    tokenizer = load_tokenizer(tmp_path)
    plain = tokenizer.encode("3*7", opening=False)
    assert tokenizer.opening == (301,)
    assert tokenizer.encode("3*7") == [301, *plain]  # and no end behind a prompt
    tokens, mask = left_pad(["3*7", "3"], tokenizer=tokenizer)
    assert tokens.tolist() == [[301, *plain], [303, 303, 301, plain[0]]]
    assert mask.tolist() == [[True] * 4, [False, False, True, True]]
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write(tmp_path / "tokenizer_config.json", settings | {"chat_template": TEMPLATE})
    assert load_tokenizer(tmp_path).encode("3*7") == plain  # a template writes its own
    _write(tmp_path / "tokenizer_config.json", settings | {"add_bos_token": False})
    assert load_tokenizer(tmp_path).encode("3*7") == plain


TEMPLATES = {
    "nothing": ("{{ tools is none }}{{ documents is none }}{{ x is defined }}", "TrueTrueFalse"),
    "special": ("{{ bos_token }}{{ sep_token }}{{ additional_special_tokens[0] }}", "<bos><x>"),
    "generation": (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        " hé <b> ",
    ),
    "json": (
        "{{ messages | tojson(indent=1, sort_keys=true) }}",
        '[\n {\n  "content": " hé <b> ",\n  "role": "user"\n }\n]',
    ),
    "loops": (
        "{% for m in 'abc' %}{% if m == 'b' %}{% break %}{% endif %}{{ m }}{% endfor %}",
        "a",
    ),
    "blanks": ("{% if true %}\n  {% set x = 1 %}\nx\n  {% endif %}\n", "x\n"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_find_what_transformers_gives_them(name, tmp_path):
    template, text = TEMPLATES[name]
    more = {"additional_special_tokens": ["<x>"], "chat_template": template}
    tokenizer = load_tokenizer(write_bytes(tmp_path, **more))
    assert tokenizer.chat(USER) == text


def test_templates_may_write_the_date(tmp_path):
    template = "{{ strftime_now('%d %b %Y') }}"
    tokenizer = load_tokenizer(write_bytes(tmp_path, chat_template=template))
    assert tokenizer.chat(USER, today=datetime.date(2024, 7, 26)) == "26 Jul 2024"
    assert tokenizer.chat(USER)[-4:] in {str(datetime.date.today().year + i) for i in (-1, 0)}


def test_several_templates_need_a_default(tmp_path):
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    assert load_tokenizer(write_bytes(tmp_path, chat_template=named)).chat(USER) == "d"
    write_bytes(tmp_path, chat_template=named[:1])
    with pytest.raises(ValueError, match="named rag, and none is the default"):
        load_tokenizer(tmp_path)


def test_an_older_folder_names_special_tokens_apart(tmp_path):
    write_bytes(tmp_path)
    _write(tmp_path / "tokenizer_config.json", {})
    _write(tmp_path / "special_tokens_map.json", {"eos_token": {"content": "<end>"}})
    assert load_tokenizer(tmp_path).stop_ids == (302,)


LATIN = """
import sys
from dpsjax.policy import load_tokenizer
tokenizer = load_tokenizer(sys.argv[1])
text = tokenizer.chat([{"role": "user", "content": "h\\u00e9"}])
assert text == "\\u00ab h\\u00e9 \\u00bb", ascii(text)
"""


@pytest.mark.parametrize("own", [True, False])
def test_text_is_utf8_in_every_locale(own, tmp_path):
    template = "« {{ messages[0].content }} »"
    write_bytes(tmp_path, chat_template="" if own else template)
    if own:
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", LATIN, str(tmp_path)]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_transformers_agrees(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra: parity")
    text = "the target is 3737 <end>é " * 12
    for number, (name, (template, _)) in enumerate(TEMPLATES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        more = {"additional_special_tokens": ["<x>"], "chat_template": template}
        write_bytes(folder, _train_state_without_dropout, **more)
        ours = load_tokenizer(folder)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert ours.chat(USER) == theirs.apply_chat_template(USER, tokenize=False), name
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text, opening=True) == theirs(text).input_ids


def _train_state_without_dropout(backend):
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 301)]
    )
    backend.enable_truncation(32)
    backend.enable_padding(length=40)
