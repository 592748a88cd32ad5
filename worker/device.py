"""Where networks run, as MONRO_WORKER_DEVICE names it."""

import torch

from listener.errors import BadSettings


def require_device(name: str) -> torch.device:
    """The device of a name.

    Raises:
        BadSettings: this machine has none of that name.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _no_device(name) from None
    has = torch.cuda.device_count()
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= has):
        raise _no_device(name)
    return device


def _no_device(name: str) -> BadSettings:
    has = torch.cuda.device_count()
    known = ["cpu", *(["cuda"] if has else []), *(f"cuda:{number}" for number in range(has))]
    return BadSettings(
        f"MONRO_WORKER_DEVICE: found {name!r}; expected one of {', '.join(known)}, which PyTorch "
        "sees here; correct it, or see to the GPU's driver and to a PyTorch with CUDA"
    )
