"""Sharded checkpoints as FSDP writes them: one file per process, of distributed tensors."""

import json

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, AutoTokenizer


def write_shards(model_folder, folder, size, *, replicas=1):
    """Write the checkpoint of a training on `size` processes and return the whole weights.

    With replicas, that many groups of processes hold the same weights (hybrid sharding). Process
    by process, each tensor is cut as FSDP cuts it: along the first dimension into chunks, of which
    the last may be shorter or empty.
    """
    actor = folder / "actor"
    (actor / "huggingface").mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model.config.save_pretrained(actor / "huggingface")
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(actor / "huggingface")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": size}))
    weights = model.state_dict()
    across = size // replicas
    for rank in range(size):
        dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
        try:
            if replicas == 1:
                mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("fsdp",))
                placements = [Shard(0)]
            else:
                mesh = init_device_mesh("cpu", (replicas, across), mesh_dim_names=("ddp", "fsdp"))
                placements = [Replicate(), Shard(0)]
            shard = {}
            for name, weight in weights.items():
                chunks = list(weight.chunk(across))
                chunks += [weight[:0]] * (across - len(chunks))
                shard[name] = DTensor.from_local(
                    chunks[rank % across].clone(), mesh, placements,
                    run_check=False, shape=weight.shape, stride=weight.stride(),
                )  # fmt: skip
            torch.save(shard, actor / f"model_world_size_{size}_rank_{rank}.pt")
        finally:
            dist.destroy_process_group()
    return weights
