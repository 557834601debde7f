"""Settings of the policy and of its training (Tables II and III), and which of them contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airtune.methods.airllm.policy.diffusion import Kind, Target
from airtune.methods.airllm.policy.objective import Objective
from airtune.methods.airllm.policy.unet import DEPTH
from airtune.workloads.settings import require, require_between, require_positive


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    prior: Literal["latent", "discrete", "none"] = "latent"
    """What PPO decides: `latent`, one value per layer and kind of module; `discrete`, a categorical head per site;
    `none`, no PPO: the refiner sees the state alone."""
    refiner: Literal["ddim", "ddpm", "none"] = "ddim"
    """`ddim` takes sample_steps steps, `ddpm` all train_steps with fresh noise (it reads neither sample_steps nor eta);
    `none` executes the coarse ranks, and reads none of the refiner's settings."""
    backbone: Literal["mlp", "unet"] = "mlp"
    objective: Objective = "improved"
    """How the reward enters Eq. 19: `advantage` weighs imitation, `critic` adds a learned value's gradient, `improved`
    denoises towards better actions that were found."""
    trained: str = ""
    """Folder of a saved policy to decide by, instead of training one."""
    bandwidth_factors: tuple[float, ...] = (1.0,)
    """The policy trains on links of these multiples of the bandwidth; with 1 alone, bandwidth tells it nothing."""
    cost_weight: float = 0.01
    """lambda of Eq. 10 (Table II: 0.01, 0.1, 1)."""
    measurements: int = 56
    """Real loss measurements that the reward surrogate learns from."""
    rounds: int = 12
    """Alternations of PPO and DDIM training (Algorithm 1)."""
    env_steps: int = 128
    """Environment steps per round."""
    parallel: int = 16
    """Environments that act side by side, at most; 1 where trying ranks changes what is tried next."""
    ppo_learning_rate: float = 3e-4
    ppo_width: int = 64
    ppo_epochs: int = 8
    clip: float = 0.2
    """PPO clipping factor (Table II)."""
    ddim_learning_rate: float = 1e-3
    width: int = 128
    """Hidden width of the MLP; channels of the U-Net's deepest level."""
    blocks: int = 2
    """Residual blocks of the MLP."""
    schedule: Kind = "scaled_linear"
    prediction: Target = "sample"
    train_steps: int = 600
    """T (Table II: 600, 800, 1000)."""
    sample_steps: int = 10
    """T_diff (Table II: 30, 50, 100)."""
    eta: float = 0.0
    """Stochasticity of the sampler; sigma_tau of Eq. 17."""
    guidance: float = 1.0
    """Weight of classifier-free guidance: 0 ignores the condition, 1 takes it as it is, above leans further on it."""
    condition_dropout: float = 0.1
    """Share of conditions replaced by the null token in training."""
    warm_start_updates: int = 400
    """Updates that teach the refiner to return the coarse action, before Algorithm 1 starts."""
    updates: int = 200
    """Refiner updates per round."""
    proposals: int = 2
    """Objective `improved`: random changes of each action that are tried, beside uniform ranks and a search's."""
    kappa: float = 0.1
    """Eq. 19: sharpness of the weights (`advantage`), weight of the value (`critic`; 0.03 did better there). `improved`
    does not read it."""

    def __post_init__(self) -> None:
        for name in ("ppo_learning_rate", "ddim_learning_rate", "clip"):
            require_positive(f"policy.{name}", getattr(self, name))
        require_between("policy.clip", self.clip, 0, 1)
        for name in ("ppo_width", "width", "blocks", "ppo_epochs", "parallel"):
            require_between(f"policy.{name}", getattr(self, name), 1, 4096)
        for name in ("rounds", "train_steps", "updates"):
            require_between(f"policy.{name}", getattr(self, name), 1, 1_000_000)
        for name in ("cost_weight", "guidance", "warm_start_updates", "proposals", "kappa"):
            require_between(f"policy.{name}", getattr(self, name), 0)
        for name in ("eta", "condition_dropout"):
            require_between(f"policy.{name}", getattr(self, name), 0, 1)
        require(
            len(self.bandwidth_factors) > 0, "policy.bandwidth_factors", self.bandwidth_factors, "give at least one"
        )
        for factor in self.bandwidth_factors:
            require_between("policy.bandwidth_factors", factor, 1e-3, 1e3)
        require_between("policy.measurements", self.measurements, 3)  # two to learn from, one held out
        require_between("policy.env_steps", self.env_steps, 2, 1_000_000)  # PPO standardises advantages
        steps = self.sample_steps
        expected = f"choose 1 to {self.train_steps} (policy.train_steps)"
        require(1 <= steps <= self.train_steps, "policy.sample_steps", steps, expected)
        self._check_variant()

    def _check_variant(self) -> None:
        """Refuse settings of the variant that contradict each other."""
        refines = self.refiner != "none"
        nobody = "nothing would decide while policy.refiner is 'none'; choose 'latent' or 'discrete'"
        require(refines or self.prior != "none", "policy.prior", self.prior, nobody)
        guided = refines or self.guidance == 1
        require(guided, "policy.guidance", self.guidance, "there is nothing to guide without policy.refiner; choose 1")
        untaught = "policy.condition_dropout is 0, so the null token is never trained; choose 1, or a share above 0"
        taught = self.guidance == 1 or self.condition_dropout > 0
        require(taught, "policy.guidance", self.guidance, untaught)
        fixed = "'ddpm' has noise of its own; choose 0, or policy.refiner 'ddim'"
        require(self.refiner != "ddpm" or self.eta == 0, "policy.eta", self.eta, fixed)
        deepest = 2 ** (DEPTH - 1)
        even = self.backbone != "unet" or self.width % deepest == 0
        require(even, "policy.width", self.width, f"choose a multiple of {deepest} for the U-Net's channels")
