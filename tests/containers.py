"""Images and containers by podman, as root without a registry: the base is made of Debian's packages."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = "localhost/mlops-base:bookworm"
PROGRAMS = ("podman", "runc", "debootstrap")

_PODMAN = ("podman", "--storage-driver", "vfs")
_RUN = (
    *("--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--cgroups", "no-conmon", "--network", "host"),
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
)
_USER = 10001
"""The user of the images."""

_HARDENED = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def podman(*arguments: str) -> str:
    """What a command of podman prints; its error where it fails."""
    ended = subprocess.run([*_PODMAN, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"podman {' '.join(arguments)}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def run_command(image: str, home: Path, variables: dict[str, str], *arguments: str) -> list[str]:
    """The command that runs an image as Kubernetes would: no capability, nothing to write but `home`, which is MLOPS_HOME, and /tmp."""
    environment = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    return [*_PODMAN, *_RUN, "--rm", *_HARDENED, "--volume", f"{home}:/var/lib/mlops", *environment, image, *arguments]


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
    """Build one image of the Containerfile, and return its name. Packages come from where this machine has them."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    assert not missing, (
        f"Images cannot be built: {', '.join(missing)} missing. apt-get install --no-install-recommends podman runc debootstrap"
    )
    if subprocess.run([*_PODMAN, "image", "exists", BASE], check=False).returncode:
        _make_base()
    name = f"localhost/mlops-{target}:test"
    certificates = "/etc/ssl/certs"
    podman(
        *("build", "--isolation", "chroot", "--network", "host", "--volume", f"{certificates}:{certificates}:ro"),
        *("--build-arg", f"BASE={BASE}", "--target", target, "--tag", name, str(ROOT)),
    )
    return name


def _make_base() -> None:
    """Debian's slim image: the packages of its smallest variant without their documentation.

    It has the certificates already: those of this machine lie over them while an image is built.
    """
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], capture_output=True, text=True, check=True
    ).stdout.split()
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
