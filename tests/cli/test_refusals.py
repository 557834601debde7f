"""Bad input on the command line: exit 1, one line that says what was found and what to do, nothing half-written."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from airtune import cli
from airtune.codec import Allocation, Binding, Draft, Factors, Quantised, Quantiser, Refiner, decode, encode
from airtune.records import RunFolder
from services.tiny_runs import (
    ENVIRONMENT,
    airtune,
    classify_settings,
    config_of,
    one_line,
    options,
    write_prose,
    write_sentences,
)
from tiny_models import save_tiny_model

NOBODY = "http://127.0.0.1:9"
"""An address at which nothing listens: a run that comes so far is refused there, and starts no process."""

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys, monkeypatch) -> Refused:
    """Run the command line in this process; return the one line with which it was refused."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["airtune", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 1
        return one_line(capsys.readouterr().err)

    return run


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("in") / "classify")


@pytest.fixture
def tiny(settings, tmp_path) -> list[str]:
    """A run that would work, were an edge at its address."""
    start = ["run", "airllm", "--preset", "tiny", *options(settings)]
    return [*start, "--edge", NOBODY, "--out", str(tmp_path / "run")]


# Settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--preset", "huge"], ("preset is 'huge'", "demo, paper, tiny")),
        (["--set", "link.colour=red"], ("unknown setting link.colour", "link.bandwidth_hz")),
        (["--set", "colour=red"], ("unknown setting colour", "link")),
        (["--set", "adapter.max_rank"], ("--set is 'adapter.max_rank'", "key=value")),
        (["--set", "=4"], ("--set is '=4'", "key=value")),
        (["--set", "link=still"], ("link is 'still'", "link.key=value")),
        (["--set", "seed=1", "--set", "seed.x=2"], ("seed is '1'", "seed.key=value")),
        (["--set", "adapter.max_rank=0"], ("adapter.max_rank is 0", "1 to 65536")),
        (["--set", "adapter.max_rank=four"], ("adapter.max_rank is 'four'", "whole number")),
        (["--set", "codec.name=blockwise", "--set", "codec.bits=5"], ("codec.bits is 5", "4, 8, 16 or 32")),
        (["--set", "policy.schedule=steep"], ("policy.schedule is 'steep'", "cosine")),
        (["--set", "policy.sample_steps=9999"], ("policy.sample_steps is 9999", "choose 1 to 600")),
        (["--set", "link.fading=fog"], ("link.fading is 'fog'", "rayleigh")),
        (["--set", "link.fading=trace"], ("link.trace is ''", "CSV")),
        (["--set", "link.late_share=1"], ("link.late_share is 1.0", "below 1")),
        (["--seed", "-1"], ("seed is -1", "at least 0")),
        (["--snr", "nan"], ("link.snrs_db is 'nan'", "finite")),
        (["--snr", "5,inf"], ("link.snrs_db is '5,inf'", "finite")),
        (["--snr", "-61"], ("link.snrs_db is -61.0", "-60 to 80")),
        (["--snr", "5,81"], ("link.snrs_db is 81.0", "-60 to 80")),
        (["--snr", "five"], ("link.snrs_db is 'five'", "comma-separated")),
        (["--snr", "5,5"], ("link.snrs_db is (5.0, 5.0)", "each SNR once")),
        (["--bandwidth", "nan"], ("link.bandwidth_hz is 'nan'", "finite")),
        (["--bandwidth", "inf"], ("link.bandwidth_hz is 'inf'", "finite")),
        (["--bandwidth", "-1e6"], ("link.bandwidth_hz is -1000000.0", "0 to 1e+12")),
        (["--bandwidth", "1e13"], ("link.bandwidth_hz is 10000000000000.0", "0 to 1e+12")),
        (["--deadline", "nan"], ("a deadline is 'nan'", "give a time above 0 such as 1s, 0.5 or 200ms")),
        (["--deadline", "0"], ("a deadline is '0'", "give a time above 0")),
        (["--deadline", "-1"], ("a deadline is '-1'", "give a time above 0")),
        (["--deadline", "1e-6", "--bandwidth", "1e5"], ("head and container alone need", "allow a longer deadline")),
        (["--edge", "ftp://x"], ("'ftp://x'", "give http://")),
        (["--edge", NOBODY], (f"no connection to {NOBODY} after 2 attempts", "start the role there")),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_can(refused, tiny, tmp_path, given, words):
    line = refused(*tiny, *given)
    assert all(word in line for word in words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unknown_method_names_those_there_are(refused, tmp_path):
    for command in (["run", "magic", "--out", tmp_path / "run"], ["edge", "magic"]):
        assert refused(*command) == "airtune: method is 'magic'; choose one of airllm, pae_mobillm"
    assert not list(tmp_path.iterdir())


# Model and data


def test_a_model_that_is_not_there_is_named(refused, tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "nowhere", tmp_path / "empty"):
        assert f"{name} holds no config.json; give --model a folder" in refused(*tiny, "--model", name)
    assert not list((tmp_path / "run").iterdir())


def reconfigure(model: Path, **changed: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changed))


def without(pattern: str) -> Callable[[Path], None]:
    def remove(model: Path) -> None:
        for path in model.glob(pattern):
            path.unlink()

    return remove


MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn weights": (lambda model: (model / "model.safetensors").write_bytes(b"torn"), "no model could be loaded as"),
    "no weights": (without("*.safetensors"), "no model could be loaded as"),
    "no tokenizer": (without("tokenizer*"), "expected words, a padding or end token"),
    "torn configuration": (lambda model: (model / "config.json").write_text("{"), "is not a valid JSON file"),
    "another family": (lambda model: reconfigure(model, model_type="electra"), "is a 'electra' model"),
    "a contradiction": (lambda model: reconfigure(model, model_type="t5"), "no model could be loaded as"),
    "more layers": (lambda model: reconfigure(model, num_hidden_layers=3), "lack bert.encoder.layer.2"),
    "wider layers": (lambda model: reconfigure(model, intermediate_size=40), "lack bert.encoder.layer.0.inter"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_not_whole_is_refused(refused, tiny, tmp_path, name):
    spoil, words = MODELS[name]
    model = save_tiny_model(tmp_path / "model", "bert", kind="classify")
    spoil(model)
    line = refused(*tiny, "--model", model)
    assert words in line
    assert str(model) in line
    assert not list((tmp_path / "run").iterdir())


def test_an_encoder_does_not_predict_next_tokens(refused, tiny, tmp_path):
    line = refused(*tiny, "--task", "text", "--data", write_prose(tmp_path / "prose.txt"))
    assert "'bert' encoder, which sees the tokens it is to predict; choose a decoder" in line


ROWS = {
    "unknown label column": ("sentence,mark\nthe cat,a\n", ("line 1: no column 'label'", "sentence, mark")),
    "too many fields": ("sentence,label\nthe cat,a,b\n", ("line 2: 3 fields, expected 2", "mend the row")),
    "empty text": ("sentence,label\nthe cat,a\n,b\n", ("line 3: the text is empty", "remove the row")),
    "no rows": ("sentence,label\n", ("no rows", "give a file with rows")),
    "nothing": ("", ("is empty", "give a file")),
    "one label": ("sentence,label\n" + "".join(f"cat {i},a\n" for i in range(200)), ("labels: a", "2 different")),
    "few rows": ("sentence,label\nthe cat,a\nthe dog,b\n", ("task classify has", "give more rows")),
    "torn quotes": ('sentence,label\n"the cat,a\nthe dog,b\n', ("line", "mend the row")),
}


@pytest.mark.parametrize("name", ROWS)
def test_malformed_rows_are_named_with_their_line(refused, tiny, tmp_path, name):
    content, words = ROWS[name]
    data = tmp_path / "rows.csv"
    data.write_text(content)
    line = refused(*tiny, "--data", data)
    assert all(word in line for word in words)
    assert not list((tmp_path / "run").iterdir())


def test_data_that_are_missing_or_of_another_kind_are_named(refused, tiny, tmp_path):
    (tmp_path / "rows.xls").write_text("x")
    (tmp_path / "latin.csv").write_bytes("sentence,label\ncafé,a\n".encode("latin-1"))
    for given, words in (
        (["--data", tmp_path / "none.csv"], "none.csv; give the path of an existing file"),
        (["--data", tmp_path], "no train file in"),
        (["--data", tmp_path / "rows.xls"], "ends in .xls; give one of .jsonl, .tsv, .csv"),
        (["--data", tmp_path / "latin.csv"], "latin.csv, line 2: bytes that are not UTF-8"),
        (["--task", "sum"], "unknown task 'sum'; choose one of pydocs, sst2, agnews, classify, text"),
        (["--task", "pydocs"], "task pydocs reads no data"),
        (["--task", "text", "--data", write_prose(tmp_path / "short.txt", 3)], "give a longer text"),
        (["--set", "task.calibration_items=5000"], "too few to draw 5000 calibration rows"),
    ):
        assert words in refused(*tiny, *given)
    assert not list((tmp_path / "run").iterdir())


# Run folders


def test_a_folder_that_is_in_use_is_left_alone(refused, tiny, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    line = refused(*tiny)
    assert f"{out} holds 1 entries (mine.txt ...), an empty or new folder expected; choose another --out" in line
    assert [entry.name for entry in out.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    assert "choose another --out" in refused(*tiny, "--out", tmp_path / "file")
    assert "choose another --out" in refused(*tiny, "--out", tmp_path / "file" / "below")


def test_resume_takes_a_run_folder_and_no_settings(refused, settings, tmp_path):
    out = tmp_path / "run"
    assert "holds no config.toml, so it is no run folder" in refused("run", "airllm", "--resume", "--out", out)
    RunFolder.create(out, config_of(settings | {"edge.url": NOBODY}).as_dict()).close()
    for given, name in (
        (["--seed", "3"], "seed"),
        (["--set", "adapter.max_rank=8"], "adapter.max_rank"),
        (["--preset", "demo"], "preset"),
        (["--model", "minilm"], "model.name"),
    ):
        line = refused("run", "airllm", "--resume", "--out", out, *given)
        assert f"--resume goes on under the settings recorded in the run folder, but {name} was given" in line
    assert f"no connection to {NOBODY}" in refused("run", "airllm", "--resume", "--out", out)
    (out / "config.toml").write_text("seed = ")
    assert "cannot be read as TOML" in refused("run", "airllm", "--resume", "--out", out)


def test_an_edge_like_a_run_takes_no_settings_of_its_own(refused, settings, tmp_path):
    RunFolder.create(tmp_path / "run", config_of(settings).as_dict()).close()
    line = refused("edge", "airllm", "--like", tmp_path / "run", "--seed", "1")
    assert "--like serves the settings recorded in the run folder, but seed was given" in line
    assert "no run folder" in refused("edge", "airllm", "--like", tmp_path)


def test_a_report_of_no_run_is_refused(refused, tmp_path):
    assert "holds no summary.json; give the folder of a finished run" in refused("report", tmp_path)
    assert not list(tmp_path.iterdir())


# The edge's address


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_port_in_use_is_named(refused, settings, taken):
    edge = ["edge", "airllm", "--preset", "tiny", *options(settings)]
    assert f"cannot listen on 127.0.0.1 port {taken}" in refused(*edge, "--port", taken)
    assert "cannot listen on 127.0.0.1 port 70000" in refused(*edge, "--port", 70000)
    assert "cannot listen on 192.0.2.1 port 0" in refused(*edge, "--host", "192.0.2.1", "--port", 0)


# Links


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--snr", "5;6"], "--snr is '5;6'; expected comma-separated numbers"),
        (["--snr", "nan"], "snr_db is nan; choose -60 to 80 dB"),
        (["--bandwidth", "inf"], "bandwidth_hz is inf"),
        (["--bandwidth", "-5"], "bandwidth_hz is -5.0"),
        (["--deadline", "nan"], "a deadline is 'nan'"),
        (["--fading", "fog"], "fading is 'fog'; choose one of still, rayleigh"),
        (["--fading", "rician", "--k-factor", "nan"], "k_factor is nan"),
        (["--fading", "nakagami", "--m", "0.1"], "m is 0.1"),
        (["--fading", "trace"], "--fading trace needs --trace FILE"),
        (["--fading", "trace", "--trace", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--gap", "-1"], "gap_db is -1.0"),
    ],
)
def test_a_link_that_cannot_be_is_named(refused, given, words):
    assert words in refused("link", *given)


# Payloads


def payload(kind: str = "text") -> bytes:
    site = Factors(np.ones((4, 2), np.float32), np.ones(2, np.float32), np.ones((2, 3), np.float32))
    meta = {"base_model": "m", "kind": kind, "fan_in_fan_out": 0}
    return encode({"a.b": site}, {}, Allocation((2,), (8,)), Binding("0" * 64, "1" * 64), meta).data


GOOD = payload()
PAYLOADS = {
    "truncated": (GOOD[:-1], "get the rest"),
    "cut in the header": (GOOD[:40], "get the payload again"),
    "altered header": (GOOD[:30] + bytes([GOOD[30] ^ 1]) + GOOD[31:], "does not match its SHA-256"),
    "altered chunk": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "does not match its SHA-256"),
    "longer": (GOOD + b"\0", "cut off what follows"),
    "newer": (GOOD[:4] + b"\x03\x00" + GOOD[6:], "format version 3, this airtune reads 1 and 2; update airtune"),
    "another file": (b"PK\x03\x04" + bytes(100), "give an .atn file"),
    "empty": (b"", "0 bytes"),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_that_is_none_is_refused_and_nothing_is_written(refused, tmp_path, name):
    data, words = PAYLOADS[name]
    file = tmp_path / "payload.atn"
    file.write_bytes(data)
    assert words in refused("inspect", file)
    assert words in refused("unpack", file, tmp_path / "adapter")
    assert [entry.name for entry in tmp_path.iterdir()] == ["payload.atn"]


def test_a_payload_of_no_known_kind_is_not_unpacked(refused, tmp_path):
    (tmp_path / "payload.atn").write_bytes(payload("speech"))
    line = refused("unpack", tmp_path / "payload.atn", tmp_path / "adapter")
    assert "kind 'speech'; one of classify, text, seq2seq, " in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["payload.atn"]


def test_unpack_never_writes_over_anything(refused, tmp_path):
    file, full = tmp_path / "payload.atn", tmp_path / "full"
    file.write_bytes(GOOD)
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    for target in (full, file):
        assert "is not empty; expected a new folder" in refused("unpack", file, target)
    assert f"cannot write {file / 'below'}" in refused("unpack", file, file / "below")
    assert file.read_bytes() == GOOD
    assert [entry.name for entry in full.iterdir()] == ["mine.txt"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full", "payload.atn"]


def test_a_payload_that_is_not_there_is_named(refused, tmp_path):
    for command in (["inspect", tmp_path / "none.atn"], ["unpack", tmp_path, tmp_path / "adapter"]):
        assert "cannot be read (" in refused(*command)


# As processes


def test_a_refusal_in_a_process_of_its_own(settings, tmp_path):
    """Nothing but the line comes out, whatever was loaded on the way to it."""
    mixed = write_sentences(tmp_path / "rows.csv")
    mixed.write_text(mixed.read_text() + "one,two,three\n")
    arguments = ["--preset", "tiny", *options(settings), "--data", mixed, "--out", tmp_path / "run"]
    ended = airtune("run", "airllm", *arguments)
    assert ended.returncode == 1
    assert one_line(ended.stderr) == f"airtune: {mixed}, line 302: 3 fields, expected 2 (sentence, label); mend the row"
    assert not list((tmp_path / "run").iterdir())


def test_wrong_usage_is_typers_own(tmp_path):
    for arguments in (["run"], ["fly"], ["run", "airllm", "--seed", "x"], ["link", "--bandwidth", "wide"]):
        ended = airtune(*arguments)
        assert ended.returncode == 2
        assert "Usage:" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_ctrl_c_says_how_to_go_on(tiny, monkeypatch, capsys):
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("airtune.run", interrupted)
    monkeypatch.setattr(sys, "argv", ["airtune", *tiny])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert one_line(capsys.readouterr().err) == (
        "airtune: interrupted; `run --resume` goes on where a run stopped, `study` by the same command"
    )


# What loads


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=False)


HEAVY = "{'torch', 'transformers', 'peft', 'matplotlib', 'gymnasium', 'stable_baselines3', 'scipy'}"


@pytest.mark.parametrize("command", ["", "run", "edge", "report", "inspect", "unpack", "link", "doctor"])
def test_help_loads_nothing_heavy(command):
    program = f"""
import sys
sys.argv = ["airtune", *{command.split()!r}, "--help"]
from airtune.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
"""
    ended = python(program)
    assert ended.returncode == 0, ended.stderr
    assert "Usage: airtune" in ended.stdout
    assert ended.stderr == ""


def test_importing_airtune_loads_nothing_heavy():
    ended = python(f"import sys, airtune; assert not ({HEAVY} | {{'numpy'}}) & set(sys.modules)")
    assert ended.returncode == 0, ended.stderr


def test_a_device_reads_payloads_without_torch(tmp_path):
    (tmp_path / "payload.atn").write_bytes(GOOD)
    file, out = str(tmp_path / "payload.atn"), str(tmp_path / "adapter")
    program = f"airtune.inspect({file!r}); airtune.unpack({file!r}, {out!r})"
    ended = python(f"import sys, airtune; {program}; assert not {HEAVY} & set(sys.modules)")
    assert ended.returncode == 0, ended.stderr


def test_a_missing_package_is_one_line_that_says_what_to_install(tmp_path):
    out = str(tmp_path / "run")
    program = f"""
import sys
sys.modules["torch"] = None  # as good as not installed
sys.argv = ["airtune", "run", "airllm", "--out", {out!r}]
from airtune.cli import main
main()
"""
    ended = python(program)
    assert ended.returncode == 1
    line = "airtune: this command needs the package torch, which is not installed; pip install 'airtune[train]'"
    assert one_line(ended.stderr) == line
    assert not list(tmp_path.iterdir())


def test_inspect_lists_what_a_payload_holds(tmp_path, monkeypatch, capsys):
    (tmp_path / "payload.atn").write_bytes(GOOD)
    monkeypatch.setattr(sys, "argv", ["airtune", "inspect", str(tmp_path / "payload.atn")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{len(GOOD)} bytes" in printed
    assert "a.b 4 x 3 2 8" in printed
    assert "000000000000" in printed


def test_unpack_prints_where_the_adapter_is(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "payload.atn").write_bytes(GOOD)
    monkeypatch.setattr(sys, "argv", ["airtune", "unpack", str(tmp_path / "payload.atn"), str(tmp_path / "adapter")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None)
    where, unchecked = capsys.readouterr().out.splitlines()
    assert where == f"PEFT adapter: {tmp_path / 'adapter'}"
    assert "not checked" in unchecked
    assert "--model" in unchecked
    assert {entry.name for entry in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@pytest.mark.parametrize("error", ["MemoryError()", "RuntimeError('DefaultCPUAllocator: not enough memory: 4 bytes')"])
def test_memory_that_runs_out_is_one_line(error):
    program = f"""
from airtune.cli import entry
def app():
    raise {error}
entry.app = app
entry.main()
"""
    ended = python(program)
    assert ended.returncode == 1
    assert one_line(ended.stderr).startswith("airtune: memory ran out (")


def test_an_error_of_our_own_making_keeps_its_traceback():
    ended = python(
        "from airtune.cli import entry\ndef app():\n    raise RuntimeError('a bug')\nentry.app = app\nentry.main()"
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_the_papers_preset_without_a_gpu_offers_the_cpus(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = refused("run", "airllm", "--preset", "paper", "--data", tmp_path, "--out", tmp_path / "run")
    for words in ("needs a CUDA GPU", "24 GB", "facebook/opt-1.3b", "sst2", "no CUDA GPU", "--preset cpu"):
        assert words in line
    assert not (tmp_path / "run").exists()  # and so no process was started, for it would log there


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("decide", "--snr", "5", "--bandwidth", "1e6", "--policy", "~nosuchuser/x"), "begins with ~ and a user"),
        (("decide", "--snr", "5", "--bandwidth", "1e6", "--policy", "x" * 5000), "File name too long"),
        (("plan", "--task", "text", "--data", "/no/such/file"), "'/no/such/file', which does not exist"),
    ],
)
def test_paths_that_cannot_be_are_one_line(refused, given, words):
    assert words in refused(*given)


def test_changes_are_refused_without_what_they_change_and_say_what_that_is(refused, tmp_path, capsys, monkeypatch):
    held = Draft(coded(1.0), Binding("0" * 64, "1" * 64), {"base_model": "m", "kind": "text"}).encode([1])
    since = decode(held.data, None).held
    factors = {"a.b": Factors(np.ones((4, 1)), np.full(1, 1.5), np.ones((1, 3)))}
    changes = Draft(Refiner(since, factors, {}).at(1e-3), Binding("0" * 64, "1" * 64), {}).encode([1])
    for name, data in (("held", held.data), ("changes", changes.data), ("old", GOOD)):
        (tmp_path / f"{name}.atn").write_bytes(data)
    file, out = tmp_path / "changes.atn", tmp_path / "adapter"
    for command in (("inspect", file), ("unpack", file, out)):
        assert f"changes adapter {since.name.hex()}, this receiver holds none" in refused(*command)
        assert "is of format 1" in refused(*command, "--since", tmp_path / "old.atn")
    for whole in ("held", "old"):
        for command in (("inspect", tmp_path / f"{whole}.atn"), ("unpack", tmp_path / f"{whole}.atn", out)):
            line = refused(*command, "--since", tmp_path / "held.atn")
            assert (
                f"{whole}.atn is an adapter of its own and changes none, yet since was given; leave since out" in line
            )
    assert not out.exists()
    monkeypatch.setattr(sys, "argv", ["airtune", "inspect", str(file), "--since", str(tmp_path / "held.atn")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert f"changes adapter {since.name.hex()}" in capsys.readouterr().out


def test_bits_and_a_link_are_not_given_together(refused, tmp_path):
    for link in (("--snr", "0"), ("--bandwidth", "1e6"), ("--snr", "0", "--bandwidth", "1e6")):
        line = refused("pack", tmp_path / "peft", tmp_path / "p.atn", "--bits", "9000", *link)
        assert "give either budget_bits, or snr_db and bandwidth_hz" in line
    assert not list(tmp_path.iterdir())


def coded(lam: float) -> Quantised:
    site = Factors(np.ones((4, 1)), np.full(1, lam), np.ones((1, 3)))
    return Quantiser({"a.b": site}, {}, canonical=False).at(1e-3)
