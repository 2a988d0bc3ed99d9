import pytest

from scalesearch.deployment.backends import BACKENDS, get_backend
from scalesearch.deployment.devices import parse_cpuinfo, read_cpu
from scalesearch.deployment.targets import TARGETS, choose_target, get_target
from scalesearch.errors import ConfigError


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_is_found_and_has_a_backend(name: str) -> None:
    target = get_target(name)
    assert target.name == name
    assert target.backend in BACKENDS
    assert target.precisions[0] == "fp32"
    assert target.channel_multiple >= 1
    assert target.summary


def test_auto_is_the_cpu_where_tensorrt_does_not_run() -> None:
    status = get_backend("tensorrt").probe()
    if status.available:
        pytest.skip("TensorRT runs here: see test_deployment_tensorrt_gpu.py")
    target, why = choose_target()
    assert get_target("auto") is target is TARGETS["cpu"]
    assert why.startswith("target: cpu through ONNX Runtime (")
    assert "TensorRT" in why


def test_precisions_follow_the_compute_capability() -> None:
    for target in TARGETS.values():
        if target.compute_capability:
            major, minor = map(int, target.compute_capability.split("."))
            assert ("fp8" in target.precisions) == ((major, minor) >= (8, 9)), target.name
            assert ("bf16" in target.precisions) == (major >= 8), target.name


def test_an_unknown_target_names_the_near_one_and_all() -> None:
    with pytest.raises(ConfigError, match=r"no chip is called 'cpuu'\. Did you mean 'cpu'\? There are: a100, "):
        get_target("cpuu")
    with pytest.raises(ConfigError, match=r"no chip is called 'toaster'\. There are: a100, cpu, .*, auto"):
        get_target("toaster")


_X86 = """processor : 0
model name : Some   CPU @ 2.00GHz
flags : fpu sse avx2 avx512_vnni avx512f aes

processor : 1
model name : Another
flags : fpu
"""
_ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimddp crc32
CPU implementer\t: 0x41
CPU part\t: 0xd0c
"""


def test_cpuinfo_of_x86_gives_name_and_the_features_that_choose_kernels() -> None:
    cpu = parse_cpuinfo(_X86, machine="x86_64")
    assert (cpu.name, cpu.features) == ("Some CPU @ 2.00GHz", ("avx2", "avx512_vnni", "avx512f"))


def test_cpuinfo_of_arm_has_no_model_name() -> None:
    cpu = parse_cpuinfo(_ARM, machine="aarch64")
    assert (cpu.name, cpu.features) == ("ARM 0x41 0xd0c", ("asimd", "asimddp"))


def test_cpuinfo_that_says_nothing_gives_the_architecture() -> None:
    cpu = parse_cpuinfo("", machine="riscv64")
    assert (cpu.name, cpu.features) == ("riscv64", ())


def test_this_machine_has_a_name() -> None:
    assert read_cpu().name
    assert read_cpu() is read_cpu()
