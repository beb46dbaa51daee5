"""A real object store with the interface of S3, SeaweedFS, for tests of what is read from one."""

import contextlib
import json
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import botocore.config
import botocore.exceptions
import botocore.session
from ports import free_ports
from waiting import wait_for

KEY, SECRET = "team", "secret of the team"
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"),
)


class ObjectStore:
    """A store with its data in `folder`, which one key may use, and one bucket, `parcels`."""

    bucket = "parcels"

    def __init__(self, folder: Path):
        self._folder = folder
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self._process: subprocess.Popen | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        actions = ["Admin", "Read", "Write", "List"]
        users = {"identities": [{"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}]}
        (folder / "users.json").write_text(json.dumps(users))

    def start(self) -> None:
        """Start it, and return when it answers."""
        command = [
            str(Path(sysconfig.get_path("scripts")) / "weed"),
            "server",
            f"-dir={self._folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            "-s3.port.iceberg=0",  # these have ports of their own, which a second store finds taken
            "-s3.port.lance=0",
            f"-s3.config={self._folder / 'users.json'}",
            "-master.volumeSizeLimitMB=64",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        wait_for(self._answers)

    def kill(self) -> None:
        """End it at once: ending in good order takes half a minute."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def read(self, name: str) -> bytes:
        return self._client().get_object(Bucket=self.bucket, Key=name)["Body"].read()

    def remove(self, name: str) -> None:
        self._client().delete_object(Bucket=self.bucket, Key=name)

    def names(self, prefix: str) -> list[str]:
        """The objects below `prefix`."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def put(self, name: str, content: bytes) -> str:
        """Store `content`, and return its URL."""
        self._client().put_object(Bucket=self.bucket, Key=name, Body=content)
        return f"s3://{self.bucket}/{name}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-central-1",
        }

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            self._client().create_bucket(Bucket=self.bucket)
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"].startswith("BucketAlready")
        except botocore.exceptions.BotoCoreError:
            return False  # it starts its parts one after another
        return True

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


class Door:
    """A port that leads to a server, and can be shut: who comes then is refused, and who is inside is put out."""

    def __init__(self, endpoint: str):
        self._target = urlsplit(endpoint)
        self._listener: socket.socket | None = None
        self._inside: set[socket.socket] = set()
        [self._port] = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._let_in, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._inside):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def shut_for(self, seconds: float) -> Iterator[None]:
        """Shut it, and open it after so many seconds, while the block goes on."""
        self.close()
        opening = threading.Timer(seconds, self.open)
        opening.start()
        try:
            yield
        finally:
            opening.join()

    def _let_in(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return  # shut
            server = socket.create_connection((self._target.hostname, self._target.port))
            for source, sink in ((caller, server), (server, caller)):
                self._inside.add(source)
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
        self._inside.discard(source)
        source.close()


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A store with its data in `folder`."""
    store = ObjectStore(folder)
    try:
        store.start()
        yield store
    finally:
        store.kill()
