"""Policies that travel: numpy's answer against torch's and stable-baselines3's, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import tomli_w
from safetensors.numpy import load_file, save_file
from stable_baselines3.common.vec_env import DummyVecEnv
from typer.testing import CliRunner

import airtune
from airtune.adapters import RankVector
from airtune.cli.app import app
from airtune.codec import Binding, Layout
from airtune.errors import AirtuneError, ConfigError, DeadlineError
from airtune.links import Link
from airtune.methods.airllm.policy.coarse import CoarsePolicy
from airtune.methods.airllm.policy.decide import decide, open_policy
from airtune.methods.airllm.policy.freeze import freeze
from airtune.methods.airllm.policy.priors import CoarseLatent, DiscreteHeads, NoPrior, Prior
from airtune.methods.airllm.policy.saved import ABOUT, WEIGHTS, SavedPolicy, TrainedOn, load_policy, save_policy
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.methods.airllm.policy.training import TrainedPolicy, new_refiner
from airtune.methods.airllm.sizes import Blocks, Sizes
from airtune.models import Site
from airtune.records import RunFolder
from airtune.tasks import Complexity
from services.tiny_runs import classify_settings, run_here

SITES = [Site(layer, kind, f"{layer}.{kind}", 8, 6) for layer in range(3) for kind in ("query", "fc1")]
CAPS = RankVector((4, 4, 3, 4, 4, 2))
LATENT, STATE = CoarseLatent.of(SITES), 4 + len(SITES)


class Sized(gymnasium.Env):
    """As wide as the real one; nothing happens in it."""

    def __init__(self, prior: Prior) -> None:
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (STATE,), np.float32)
        self.action_space = prior.space

    def reset(self, *, seed=None, options=None):
        return np.zeros(STATE, np.float32), {}

    def step(self, action):
        return np.zeros(STATE, np.float32), 0.0, True, False, {}


def trained(prior: Prior, **settings: object) -> TrainedPolicy:
    """Networks as drawn: what they answer is arbitrary, and that is enough to compare answers."""
    config = PolicyConfig(width=32, train_steps=100, sample_steps=7, **settings)  # type: ignore[arg-type]
    coarse = None
    if not isinstance(prior, NoPrior):
        envs = DummyVecEnv([lambda: Sized(prior)])
        options = {"learning_rate": 1e-3, "epochs": 1, "clip": 0.2, "gamma": 0.9, "gae_lambda": 0.9}
        coarse = CoarsePolicy(envs, steps=4, width=16, entropy_weight=0.0, seed=3, **options)
    refiner = None if config.refiner == "none" else new_refiner(prior, len(SITES), STATE, config, seed=5)
    return TrainedPolicy(prior, coarse, refiner)


def states(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-2, 2, (count, STATE)).astype(np.float32)


@pytest.mark.parametrize("prior", [LATENT, DiscreteHeads(CAPS), NoPrior(len(SITES))], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_a_frozen_policy_answers_as_torch_does(prior, guidance, prediction):
    policy = trained(prior, guidance=guidance, prediction=prediction)
    frozen = freeze(policy.prior, policy.coarse, policy.refiner)
    asked = states(9)
    expected = policy.act(asked, np.random.default_rng(1))
    assert np.ptp(expected, axis=0).min() > 1e-3  # it does look at the state
    assert frozen.act(asked, np.random.default_rng(1)) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("prior", [LATENT, DiscreteHeads(CAPS)], ids=lambda p: type(p).__name__)
def test_without_a_refiner_it_is_ppos_own_mean(prior):
    policy = trained(prior, refiner="none")
    frozen, asked = freeze(policy.prior, policy.coarse, None), states(9)
    assert policy.coarse is not None
    raw, _ = policy.coarse._ppo.predict(asked, deterministic=True)
    expected = prior.spread(prior.condition(raw))
    assert frozen.act(asked, np.random.default_rng(1)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("settings", [{"backbone": "unet"}, {"refiner": "ddpm"}, {"eta": 0.5}])
def test_what_numpy_does_not_know_is_not_frozen(settings):
    policy = trained(LATENT, **settings)
    with pytest.raises(ConfigError, match="only one by ddim"):
        freeze(policy.prior, policy.coarse, policy.refiner)


@pytest.fixture
def saved() -> SavedPolicy:
    policy = trained(LATENT)
    shapes = {site.path: (site.fan_out, site.fan_in) for site in SITES}
    layout = Layout.of(shapes, {"head.weight": (2, 8)}, Binding("0" * 64, "1" * 64), {"kind": "classify"})
    return SavedPolicy(
        name="airllm",
        seed=11,
        policy=freeze(policy.prior, policy.coarse, policy.refiner),
        modules=tuple((site.layer, site.module) for site in SITES),
        caps=CAPS,
        sizes=Sizes(layout.contents, Blocks(layout, 4)),
        deadline_s=0.5,
        complexity=Complexity(7.5, 0.1, 90),
        trained_on=TrainedOn("tiny", "classify", (0.0, 10.0), (1e4,), 0.01),
    )


def test_a_policy_decides_alike_after_its_journey(saved, tmp_path):
    save_policy(tmp_path / "there", saved)
    back = load_policy(tmp_path / "there")
    links = [Link(width, snr_db) for snr_db in (-5.0, 5.0, 15.0) for width in (4e4, 6e4, 1e5)]
    expected = [decide(saved, link) for link in links]
    assert [decide(back, link) for link in links] == expected
    for decision, link in zip(expected, links, strict=True):
        assert decision.air_bits == back.sizes.air_bits(decision.ranks) <= decision.budget_bits
        assert decision.airtime_s == link.airtime_s(decision.air_bits, link.mean_state) <= 0.5


def test_a_decision_obeys_deadline_and_refuses_nonsense(saved):
    link = Link(1e4, 5.0)
    least = saved.sizes.air_bits(RankVector((0,) * len(SITES)))
    tight = (least + 1) / link.rate_bps(link.mean_state)
    assert decide(saved, link, deadline_s=tight).ranks.total == 0
    with pytest.raises(DeadlineError):
        decide(saved, link, deadline_s=tight / 2)
    for wrong in ({"entropy_bits": float("nan")}, {"oov_rate": 1.5}, {"deadline_s": 0.0}):
        with pytest.raises(AirtuneError):
            decide(saved, link, **wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sites: sites[:-1], "decides 6 ranks, this model has 5 sites"),
        (lambda sites: [*sites[:-1], replace(sites[-1], fan_in=9)], "fc1 of layer 2"),
        (lambda sites: [*sites[:-1], replace(sites[-1], module="fc2")], "fc2 of layer 2"),
    ],
)
def test_another_anatomy_is_refused(saved, change, said):
    saved.check_anatomy(SITES, CAPS)
    sites = change(SITES)
    with pytest.raises(ConfigError, match=said):
        saved.check_anatomy(sites, RankVector(CAPS.ranks[: len(sites)]))
    with pytest.raises(ConfigError, match="rank up to 3"):
        saved.check_anatomy(SITES, RankVector((4, 4, 4, 4, 4, 2)))


def test_damage_is_refused(saved, tmp_path):
    with pytest.raises(ConfigError, match="no readable policy"):
        load_policy(tmp_path)
    save_policy(tmp_path, saved)
    weights = bytearray((tmp_path / WEIGHTS).read_bytes())
    weights[-5] ^= 1
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(ConfigError, match="names by hash"):
        load_policy(tmp_path)


def rewritten(folder: Path, **about: object) -> None:
    """Change the text, and make its hash fit the weights that are there."""
    text = tomllib.loads((folder / ABOUT).read_text())
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / ABOUT).write_text(tomli_w.dumps(text | {"weights_sha256": digest} | about))


@pytest.mark.parametrize(
    "about",
    [
        *({"format": 2}, {"prior": "other"}, {"sites": []}, {"bits": 5}, {"base": {}}),
        *({"guidance": "much"}, {"guidance": float("nan")}, {"guidance": -3.0}, {"seed": "x"}, {"seed": -1}),
        *({"deadline_s": 0.0}, {"complexity": {"entropy_bits": "a", "oov_rate": 0.1, "words": 3}}),
        *({"trained_on": {}}, {"trained_on": "x"}, {"trained_on": {"model": "tiny"}}),
    ],
)
def test_a_text_that_makes_no_sense_is_refused(saved, tmp_path, about):
    save_policy(tmp_path, saved)
    rewritten(tmp_path, **about)
    with pytest.raises(ConfigError):
        load_policy(tmp_path)


def test_a_policy_trained_at_no_snr_is_refused():
    with pytest.raises(ConfigError, match="no SNR"):
        TrainedOn("tiny", "classify", (), (1e4,), 0.01)


@pytest.mark.parametrize("name", ["refiner.null", "refiner.enter_x", "actor.0.weight", "refiner.leave.last.bias"])
@pytest.mark.parametrize("damage", ["nan", "short", "gone"])
def test_arrays_that_do_not_fit_are_refused_even_with_the_right_hash(saved, tmp_path, name, damage):
    save_policy(tmp_path, saved)
    arrays = load_file(tmp_path / WEIGHTS)
    found = arrays.pop(name)
    if damage != "gone":
        arrays[name] = np.full_like(found, np.nan) if damage == "nan" else np.ascontiguousarray(found[..., :-1])
    save_file(arrays, tmp_path / WEIGHTS)
    rewritten(tmp_path)
    with pytest.raises(ConfigError):
        load_policy(tmp_path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("in") / "classify")


def test_a_runs_policy_decides_elsewhere_what_it_decided_there(settings, tmp_path):
    summary = run_here(settings, tmp_path / "first")
    rows = [row for row in summary["rows"] if row["allocator"] == "airllm"]
    for row in rows:
        found = airtune.decide(row["snr_db"], row["bandwidth_hz"], policy=tmp_path / "first")
        assert list(found.ranks.ranks) == row["ranks"]
        # deciding knows a bound, sending the payload itself
        assert row["air_bits"] <= found.air_bits <= 1.01 * row["air_bits"]
        assert found.airtime_s == pytest.approx(row["airtime_s"] * found.air_bits / row["air_bits"])
    given = run_here(settings | {"policy.trained": str(tmp_path / "first" / "policy")}, tmp_path / "second")
    assert [row["ranks"] for row in given["rows"] if row["allocator"] == "airllm"] == [row["ranks"] for row in rows]
    assert not RunFolder.open(tmp_path / "second").read_metrics("policy")  # nothing was trained
    with pytest.raises(ConfigError, match=r"adapter\.max_rank"):
        run_here(
            settings | {"policy.trained": str(tmp_path / "first" / "policy"), "adapter.max_rank": "3"},
            tmp_path / "third",
        )


def test_deciding_loads_no_torch(saved, tmp_path):
    save_policy(tmp_path / "policy", saved)
    code = (
        f"import sys, airtune; airtune.decide(5.0, 1e5, policy={str(tmp_path)!r});"
        "print(sorted({'torch', 'transformers', 'stable_baselines3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_folder_the_policy_that_comes_with_airtune_decides():
    found = airtune.decide(5.0, 1e6)
    assert len(found.ranks) == 36 == len(open_policy("").caps)
    assert found.airtime_s <= found.deadline_s


@pytest.mark.parametrize(("snr", "bandwidth"), [("5", "1e6"), ("40", "1e6"), ("5", "1e9")])
def test_outside_of_what_it_was_trained_on_it_says_that_it_guesses(snr: str, bandwidth: str):
    said = CliRunner().invoke(app, ["decide", "--snr", snr, "--bandwidth", bandwidth]).output
    assert ("the policy guesses" in " ".join(said.split())) == ((snr, bandwidth) != ("5", "1e6"))
