"""A real object store with the interface of S3, SeaweedFS, for tests of what is read from one."""

import json
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import botocore.config
import botocore.exceptions
import botocore.session
from waiting import wait_for

KEY, SECRET = "team", "secret of the team"


@dataclass(frozen=True)
class ObjectStore:
    """The address of a running store with one bucket, `parcels`."""

    endpoint: str
    bucket: str = "parcels"

    def put(self, name: str, content: bytes) -> str:
        """Store `content`, and return its URL."""
        self._client().put_object(Bucket=self.bucket, Key=name, Body=content)
        return f"s3://{self.bucket}/{name}"

    def create_bucket(self) -> None:
        self._client().create_bucket(Bucket=self.bucket)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-central-1",
        }

    def _client(self):
        session = botocore.session.get_session()
        return session.create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="eu-central-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=botocore.config.Config(retries={"max_attempts": 0}),
        )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def _create_bucket(store: ObjectStore, process: subprocess.Popen, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        store.create_bucket()
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
        return False  # it starts its parts one after another
    return True


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A store with its data in `folder`, which one key may use."""
    actions = ["Admin", "Read", "Write", "List"]
    users = {"identities": [{"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}]}
    (folder / "users.json").write_text(json.dumps(users))
    names = (
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port",
        "s3.port.grpc",
    )
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={folder / 'users.json'}",
        "-master.volumeSizeLimitMB=64",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    store = ObjectStore(f"http://127.0.0.1:{ports['s3.port']}")
    try:
        wait_for(lambda: _create_bucket(store, process, folder / "log"), seconds=120)
        yield store
    finally:
        process.kill()  # nothing of it is kept; ending in good order takes half a minute
        process.wait()
