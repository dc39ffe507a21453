"""The settings of verl, made from ours: composed, resolved and checked by the installed verl."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cello1.errors import UseError, first_line
from cello1.recipes import VerlSettings

if TYPE_CHECKING:
    from omegaconf import DictConfig


def need_verl() -> None:
    """Check that verl and Ray are installed.

    Raises
    ------
    UseError
        When one is not.
    """
    missing = [name for name in ("verl", "ray") if find_spec(name) is None]
    if missing:
        raise UseError(
            f"{' and '.join(missing)} cannot be imported; verl pins other versions than ours, so "
            "install cello1[cluster] in an environment of its own (see docs/verl.md)"
        )


def compose(settings: VerlSettings, folder: Path, *, log: Path) -> DictConfig:
    """Return the whole configuration of a training by verl, every reference resolved.

    Parameters
    ----------
    settings
        The section `verl` of a recipe.
    folder
        The run folder, which holds train.parquet, validation.parquet and reward.py.
    log
        Where verl is to log, one JSON object a line.

    Raises
    ------
    UseError
        When a name in `verl.config` is unknown, or verl refuses the settings.
    """
    need_verl()
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra_compose("ppo_trainer")
    for key, value in {**_paper(settings), **_places(settings, folder, log)}.items():
        OmegaConf.update(config, key, value, force_add=key.startswith("ray_kwargs."))
    for key, value in settings.config.items():
        try:
            OmegaConf.update(config, key.removeprefix("+"), value, force_add=key.startswith("+"))
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise UseError(
                f"verl.config: {key} cannot be set ({first_line(error)}); the names are those of "
                "verl's ppo_trainer.yaml, and a new one is added with a + before it"
            ) from error
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    _validate(resolved)
    return resolved


def _paper(settings: VerlSettings) -> dict[str, Any]:
    """Return the algorithm by verl's names; GRPO has its penalty in the loss, PPO in the reward."""
    grpo, model = settings.algorithm == "grpo", "actor_rollout_ref"
    tokens = settings.tokens_per_gpu
    return {
        "algorithm.adv_estimator": "grpo" if grpo else "gae",
        "algorithm.use_kl_in_reward": not grpo and settings.kl > 0,
        "algorithm.kl_ctrl.kl_coef": settings.kl,
        "algorithm.gamma": 1.0,
        "algorithm.lam": 1.0,
        "data.train_batch_size": settings.batch,
        "data.max_prompt_length": settings.max_prompt,
        "data.max_response_length": settings.max_response,
        "data.filter_overlong_prompts": True,
        "data.seed": settings.seed,
        f"{model}.rollout.name": settings.rollout,
        f"{model}.rollout.n": settings.group if grpo else 1,
        f"{model}.rollout.temperature": 1.0,
        f"{model}.rollout.top_p": 1.0,
        f"{model}.rollout.top_k": -1,
        f"{model}.rollout.tensor_model_parallel_size": settings.tensor_parallel,
        f"{model}.actor.use_kl_loss": grpo and settings.kl > 0,
        f"{model}.actor.kl_loss_coef": settings.kl,
        f"{model}.actor.kl_loss_type": "low_var_kl",
        f"{model}.actor.entropy_coeff": 0,
        f"{model}.actor.optim.lr": settings.learning_rate,
        f"{model}.actor.ppo_mini_batch_size": settings.minibatch,
        f"{model}.actor.use_dynamic_bsz": True,
        f"{model}.actor.ppo_max_token_len_per_gpu": tokens,
        "critic.enable": not grpo,
        "critic.optim.lr": settings.value_learning_rate,
        "critic.ppo_mini_batch_size": settings.minibatch,
        "critic.ppo_max_token_len_per_gpu": tokens,
        "trainer.total_epochs": settings.epochs,
        "trainer.test_freq": settings.evaluate_every,
        "trainer.save_freq": settings.evaluate_every,
        "trainer.nnodes": settings.nodes,
        "trainer.n_gpus_per_node": settings.gpus,
    }


def _places(settings: VerlSettings, folder: Path, log: Path) -> dict[str, Any]:
    """Return the paths, all in the run folder, which every node must see."""
    here = folder.resolve()
    environment = {"VERL_FILE_LOGGER_PATH": str(log.resolve()), "TOKENIZERS_PARALLELISM": "false"}
    places: dict[str, Any] = {
        "actor_rollout_ref.model.path": settings.model,
        "critic.model.path": settings.model,
        "data.train_files": [str(here / "train.parquet")],
        "data.val_files": [str(here / "validation.parquet")],
        "reward.custom_reward_function.path": str(here / "reward.py"),
        "reward.custom_reward_function.name": "compute_score",
        "trainer.default_local_dir": str(here / "checkpoints"),
        "trainer.project_name": "cello1",
        "trainer.experiment_name": here.name,
        "trainer.logger": ["console", "file"],
        "trainer.resume_mode": "auto",
        "trainer.val_before_train": True,
        "ray_kwargs.ray_init.runtime_env.env_vars": environment,
    }
    if settings.address:
        return places | {"ray_kwargs.ray_init.address": settings.address}
    # Its helpers each reserve a CPU in Ray; with too few the trainer would wait forever.
    return places | {"ray_kwargs.ray_init.num_cpus": max(16, os.cpu_count() or 1)}


def _validate(config: DictConfig) -> None:
    """Let verl check its configuration before a cluster is started."""
    from hydra.errors import InstantiationException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        with redirect_stdout(io.StringIO()):
            validate_config(
                config=config,
                use_reference_policy=need_reference_policy(config),
                use_critic=need_critic(config),
            )
    except (AssertionError, ValueError, TypeError, InstantiationException) as error:
        # Hydra wraps the errors of verl about one section.
        said = error.__cause__ if isinstance(error, InstantiationException) else error
        raise UseError(f"verl refuses these settings: {said}") from error
