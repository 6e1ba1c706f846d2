"""What is told of a device, and the requirement files for GPUs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnxruntime as ort
import pytest

from shared.backends import connect
from shared.devices import describe
from shared.errors import ConfigurationError
from shared.settings import Settings

ROOT = Path(__file__).parents[2]


class Nvml(ModuleType):
    """The part of NVIDIA's library that is used, for a machine with two GPUs."""

    class NVMLError(Exception):
        pass

    UUIDS = ("GPU-a", "GPU-b")

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.opened = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index >= len(self.UUIDS):
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return self.UUIDS.index(uuid)

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return f"GPU {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=1000, used=handle)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    library = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_of_a_processor_there_is_nothing_to_tell() -> None:
    assert describe("cpu") == {"device": "cpu"}


def test_a_gpu_has_a_name_and_memory(nvml: Nvml) -> None:
    assert describe("cuda") == {"device": "cuda", "name": "GPU 0", "total_bytes": 1000, "used_bytes": 0}
    assert describe("cuda:1") == {"device": "cuda:1", "name": "GPU 1", "total_bytes": 1000, "used_bytes": 1}


@pytest.mark.parametrize("visible", ["1", "1,0", "GPU-b", " 1 , 0"])
def test_devices_are_counted_as_cuda_counts_them(visible: str, nvml: Nvml) -> None:
    assert describe("cuda:0", visible)["name"] == "GPU 1"


@pytest.mark.parametrize("visible", [None, "0", "GPU-c", "-1", "none,none,none"])
def test_a_gpu_that_is_not_there_has_its_setting_only(visible: str | None, nvml: Nvml) -> None:
    assert describe("cuda:2", visible) == {"device": "cuda:2"}


def test_the_library_is_closed_even_where_it_fails(nvml: Nvml) -> None:
    describe("cuda")
    describe("cuda:7")
    assert nvml.opened == 0


def test_without_the_library_a_gpu_has_its_setting_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert describe("cuda:1") == {"device": "cuda:1"}


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="ONNX Runtime has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_onnx_runtime_without_cuda_is_said_with_what_it_has(device: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^THINLENS_DEVICE: '{device}' .*CPUExecutionProvider.*: pip install onnxruntime-gpu"
    ):
        connect("onnx", Settings(device=device))


def requirements(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_onnx_runtime_for_gpus_is_the_default_but_for_the_runtime() -> None:
    default = requirements(ROOT / "requirements.txt")
    gpu = requirements(ROOT / "docker" / "requirements-onnx-gpu.txt")
    (plain,) = (line for line in default if line.startswith("onnxruntime"))
    in_place = plain.replace("onnxruntime", "onnxruntime-gpu[cuda,cudnn]")
    assert gpu == [line if line != plain else in_place for line in default] + gpu[len(default) :]
    assert [line.partition(">")[0] for line in gpu[len(default) :]] == ["nvidia-ml-py"]


def test_the_frameworks_for_gpus_are_those_for_the_processor() -> None:
    torch_gpu = requirements(ROOT / "docker" / "requirements-torch-gpu.txt")
    assert torch_gpu[0] == "-r ../requirements-torch.txt"
    (plain,) = (line for line in requirements(ROOT / "requirements-tf.txt") if line.startswith("tensorflow"))
    tf_gpu = requirements(ROOT / "docker" / "requirements-tf-gpu.txt")
    assert tf_gpu[:2] == ["-r ../requirements.txt", plain.replace("tensorflow-cpu", "tensorflow[and-cuda]")]
    assert torch_gpu[1:] == tf_gpu[2:] == requirements(ROOT / "docker" / "requirements-onnx-gpu.txt")[-1:]
