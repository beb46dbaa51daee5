"""Images and containers by podman, as root without a registry: the base is made of Debian's packages.

They have a storage and networks of their own, beside those of the machine. Images stay there for the next time.
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mlops_assets.local.environment import scripts_directory

ROOT = Path(__file__).parents[1]
BASE = "localhost/mlops-base:bookworm"
PROGRAMS = ("podman", "runc", "debootstrap", "catatonit", "netavark", "aardvark-dns", "iptables")
"""What Debian's packages of the same names have."""

_HELPERS = ("/usr/lib/podman", "/usr/libexec/podman")
_STORAGE = Path("/var/lib/mlops-test-containers")

_RUN = ("run", "--network", "host")
_TIME = 1_700_000_000
"""What `make images` takes from the commit."""

_USER = 10001
"""The user of the images."""

_HARDENED = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

# Without systemd no unit of it can be the group of a container, and few machines let a container have more files than this.
_CONFIGURATION = """
[containers]
init_path = "{init}"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
cgroups = "no-conmon"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
helper_binaries_dir = [{helpers}]
[network]
network_backend = "netavark"
network_config_dir = "{storage}/networks"
"""


@cache
def podman_environment() -> dict[str, str]:
    """The variables with which podman, and who calls it, uses the storage and networks of the tests. Fails naming programs that are missing."""
    search = os.pathsep.join([os.environ["PATH"], *_HELPERS])
    missing = [program for program in PROGRAMS if shutil.which(program, path=search) is None]
    assert not missing, (
        f"Containers cannot be run: {', '.join(missing)} missing. apt-get install --no-install-recommends {' '.join(PROGRAMS)}"
    )
    assert os.geteuid() == 0, "Containers cannot be run: this is not root."
    _STORAGE.mkdir(exist_ok=True)
    kind = subprocess.run(["stat", "--file-system", "--format", "%T", _STORAGE], capture_output=True, text=True, check=True)
    # One overlay on another is none. Without, each container is a copy of its image.
    driver = "vfs" if kind.stdout.strip() == "overlayfs" else "overlay"
    configuration, storage = _STORAGE / "containers.conf", _STORAGE / "storage.conf"
    helpers = ", ".join(f'"{folder}"' for folder in _HELPERS)
    configuration.write_text(_CONFIGURATION.format(init=shutil.which("catatonit"), helpers=helpers, storage=_STORAGE))
    storage.write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{_STORAGE}/storage"\nrunroot = "/run/mlops-test-containers"\n'
    )
    return {**os.environ, "CONTAINERS_CONF": str(configuration), "CONTAINERS_STORAGE_CONF": str(storage)}


def podman(*arguments: str) -> str:
    """What a command of podman prints; its error where it fails."""
    ended = subprocess.run(["podman", *arguments], env=podman_environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"podman {' '.join(arguments)}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def run_command(image: str, home: Path, variables: dict[str, str], *arguments: str) -> list[str]:
    """The command that runs an image as Kubernetes would: no capability, nothing to write but `home`, which is MLOPS_HOME, and /tmp."""
    environment = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    return ["podman", *_RUN, "--rm", *_HARDENED, "--volume", f"{home}:/var/lib/mlops", *environment, image, *arguments]


def give_to_image(folder: Path) -> None:
    """Make the user of the images the owner of a folder with all that it has, as `fsGroup` does."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, _USER, _USER)


@contextmanager
def user_of_image() -> Iterator[None]:
    """Write files inside the block as the user of the images does."""
    os.setegid(_USER)
    os.seteuid(_USER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def size_in_megabytes(image: str) -> float:
    """The size of an image as podman shows it."""
    return int(podman("image", "inspect", "--format", "{{.Size}}", image)) / 1e6


@cache
def build(target: str) -> str:
    """Build one image of the Containerfile where it is not there, and return its name."""
    return build_as(f"localhost/mlops-{target}:test", target)


def build_as(name: str, target: str, *options: str) -> str:
    """Build one image of the Containerfile as `make images` does. Packages come from where this machine has them."""
    certificates = "/etc/ssl/certs"
    times = ("--timestamp", str(_TIME), "--build-arg", f"SOURCE_DATE_EPOCH={_TIME}")
    mounts = ("--volume", f"{certificates}:{certificates}:ro")
    return _build(name, target, ROOT, ROOT / "Containerfile", *mounts, *times, *options)


@cache
def build_server(target: str) -> str:
    """Build the image of a server of others, and return its name: `postgres`, `nats`, `redis` or `files`."""
    folder = Path(__file__).parent / "server_images"
    with tempfile.TemporaryDirectory(prefix="images.") as context:
        shutil.copy(folder / "postgres-entrypoint", context)
        for program in ("nats-server", "weed"):
            shutil.copy(scripts_directory() / program, context)
        return _build(f"localhost/mlops-{target}:test", target, Path(context), folder / "Containerfile")


def _build(name: str, target: str, context: Path, file: Path, *options: str) -> str:
    exists = subprocess.run(["podman", "image", "exists", BASE], env=podman_environment(), check=False).returncode == 0
    if not exists:
        _make_base()
    podman(
        *("build", "--isolation", "chroot", "--network", "host", *options),
        *("--build-arg", f"BASE={BASE}", "--target", target, "--file", str(file), "--tag", name, str(context)),
    )
    return name


def layers(image: str) -> list[str]:
    """The digests of the layers of an image."""
    found: list[str] = json.loads(podman("image", "inspect", image))[0]["RootFS"]["Layers"]
    return found


def _make_base() -> None:
    """Debian's slim image: the packages of its smallest variant without their documentation.

    It has the certificates already: those of this machine lie over them while an image is built.
    """
    list_targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    # Only a Debian's own source has Debian's packages.
    is_debian = platform.freedesktop_os_release()["ID"] == "debian"
    targets = subprocess.run(list_targets, capture_output=True, text=True, check=True).stdout.split() if is_debian else []
    with tempfile.TemporaryDirectory(prefix="base.") as folder:
        root = Path(folder) / "root"
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root), *targets[:1]],
            check=True,
            capture_output=True,
        )
        for name in (
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
            "usr/share/info",
            "var/cache",
            "var/lib/apt/lists",
            "var/log",
        ):
            shutil.rmtree(root / name)
            (root / name).mkdir()
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        excluded = "".join(f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "man", "locale"))
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(excluded)
        subprocess.run(
            ["tar", "--create", "--file", f"{folder}/base.tar", "--directory", root, "--exclude", "./dev/*", "."], check=True
        )
        podman("import", str(Path(folder) / "base.tar"), BASE)
