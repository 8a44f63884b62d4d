"""Every setting of the service, typed and documented; read from `HARRIER_*` variables and `.env`."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1024 * 1024
EVERYBODY = "*"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="HARRIER_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Path = Path(".harrier")
    """Where everything lies that has no address of its own: database, broker, files, sockets, logs."""
    host: str = "127.0.0.1"
    """Address the API listens on; anything but loopback needs API keys."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port the API listens on."""
    database_url: str | None = None
    """SQLAlchemy address; default is `harrier.sqlite3` in the home. PostgreSQL: `postgresql+psycopg://…`."""
    redis_url: SecretStr | None = None
    """The broker; default is the bundled one, on a socket in the home."""
    storage_url: str | None = None
    """Where files are kept; default is `storage/` in the home. `file:///path` or `s3://bucket/prefix`."""
    device: str = "auto"
    """What the engine and the workers compute on: `auto`, `cpu`, or accelerators by number."""
    root_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """Prefix under which a proxy publishes the API, which it may take off or keep: `/vision`."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses and networks whose X-Forwarded-For, -Proto and -Host are believed, comma separated."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ("*",)
    """Host names the API answers to, comma separated."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Web origins that may call the API from a browser, comma separated."""
    bootstrap_key_file: Path | None = None
    """A file whose content becomes the first API key, with all scopes, when there is none."""
    require_keys: bool = False
    """Ask for an API key on loopback as well."""
    url: str | None = None
    """Server that the `harrier` commands talk to; default is this machine, at `host` and `port`."""
    api_key: SecretStr | None = None
    """API key that the `harrier` commands send."""
    log_json: bool = False
    """One JSON object a line instead of text for people."""

    max_upload_bytes: PositiveInt = 20 * 1024 * MIB
    """Largest archive accepted by `POST /datasets`."""
    max_weights_bytes: PositiveInt = 2 * 1024 * MIB
    """Largest file accepted by `POST /models/import`."""
    max_video_bytes: PositiveInt = 4 * 1024 * MIB
    """Largest video accepted by `POST /detect`."""
    max_image_bytes: PositiveInt = 32 * MIB
    """Largest picture accepted by `POST /detect`."""
    max_detect_bytes: PositiveInt = 128 * MIB
    """Largest body of one `POST /detect`, with all its pictures."""
    max_detect_images: PositiveInt = 64
    """Most pictures in one `POST /detect`."""
    max_image_pixels: PositiveInt = 100_000_000
    """Pictures whose header announces more are refused before they are decoded."""
    max_json_bytes: PositiveInt = 1 * MIB
    """Largest body of any other call."""
    max_archive_files: PositiveInt = 500_000
    """Most entries in an archive."""
    max_archive_bytes: PositiveInt = 100 * 1024 * MIB
    """Most bytes an archive may unpack to."""
    max_archive_ratio: PositiveInt = 200
    """Largest unpacked size of an entry as a multiple of its packed size."""
    min_free_bytes: PositiveInt = 512 * MIB
    """An upload that would leave less on the disk is refused with 507."""
    storage_quota_bytes: PositiveInt | None = None
    """What datasets, models and checkpoints may take together; an upload beyond it is refused with 413."""
    max_queued_jobs: PositiveInt = 1000
    """Jobs waiting at the same time; beyond it 503 with Retry-After."""
    max_requests_per_minute: PositiveInt | None = None
    """From one API key, or one address where none is needed, at each API process; beyond it 429."""
    body_timeout_s: PositiveFloat = 30.0
    """Longest silence of a client in the middle of its request body, or of the answer that it reads."""

    cpu_jobs: PositiveInt = 2
    """Imports and exports that one worker of queue `cpu` does side by side."""
    lease_s: PositiveFloat = 45.0
    """A worker silent for this long loses its job."""
    heartbeat_s: PositiveFloat = 10.0
    """How often a worker says that it is alive."""
    sweep_s: PositiveFloat = 10.0
    """How often expired leases and unanswered bells are looked for."""
    bell_patience_s: PositiveFloat = 30.0
    """A queued job that nobody claimed for this long is announced again."""
    hang_s: PositiveFloat = 300.0
    """A job without a sign of progress for this long (or ten median steps) is ended and tried again."""
    stop_grace_s: PositiveFloat = 30.0
    """How long a job process may take to save its state before it is killed."""
    janitor_s: PositiveFloat = 600.0
    """How often files that belong to nothing are removed, and how old they must be."""
    idempotency_hours: PositiveFloat = 24.0
    """How long the answer to an Idempotency-Key is remembered."""

    keep_jobs_days: PositiveFloat | None = None
    """Ended jobs go after so long, with log, series and checkpoints; what they made stays. Default: never."""
    keep_rejected_days: PositiveFloat | None = None
    """Rejected datasets go after so long. Default: never."""
    keep_audit_days: PositiveFloat | None = None
    """Notes of who changed what go after so long. Default: never."""
    keep_events_days: PositiveFloat = 7.0
    """Events go after so long, and with them the replay of streams; logs and series stay with their job."""

    engine_queue_images: PositiveInt = 256
    """Pictures that may wait for the engine; beyond it 503 with Retry-After."""
    engine_queue_bytes: PositiveInt = 512 * MIB
    """Bytes of pictures that may wait for the engine."""
    engine_decode_bytes: PositiveInt = 1024 * MIB
    """Memory for decoding large pictures, of which as many are decoded side by side; each may be alone."""
    engine_deadline_s: PositiveFloat = 30.0
    """A picture that waited and was computed for longer than this is dropped with 503."""
    engine_model_bytes: PositiveInt | None = None
    """Models are kept in memory up to this much; default 2 GiB, or a quarter of an accelerator's memory."""
    engine_batch_size: PositiveInt | None = None
    """Most pictures in one forward pass; default 1 on CPU, on an accelerator what a warm-up finds best."""
    engine_batch_delay_ms: NonNegativeFloat = 2.0
    """How long a batch that is not full may wait for more, when the engine is busy."""
    backend: str | None = None
    """Models run in `onnxruntime`, `openvino`, `openvino:bf16`, `tensorrt`, `eager`; default: the best."""

    @field_validator("trusted_proxies", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("root_path", mode="before")
    @classmethod
    def _begin_with_slash(cls, value: object) -> object:
        if isinstance(value, str) and value.strip("/"):
            return "/" + value.strip("/")
        return "" if value == "/" else value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each != EVERYBODY:
                ip_network(each, strict=False)  # a ValueError says what is wrong with it
        return value

    @property
    def home_path(self) -> Path:
        return self.home.expanduser().absolute()

    @property
    def database_address(self) -> str:
        return self.database_url or f"sqlite:///{self.home_path / 'harrier.sqlite3'}"

    @property
    def broker_socket(self) -> Path:
        """The bundled broker's socket."""
        return self.home_path / "redis" / "redis.sock"

    @property
    def broker_address(self) -> str:
        """The broker as Celery writes it."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"redis+socket://{self.broker_socket}?virtual_host=0"

    @property
    def storage_address(self) -> str:
        return self.storage_url or f"file://{self.home_path / 'storage'}"

    @property
    def engine_socket(self) -> Path:
        return self.home_path / "run" / "engine.sock"

    @property
    def scratch(self) -> Path:
        """Uploads on their way, unpacked archives, a running job's files; whatever is here may be lost."""
        return self.home_path / "scratch"

    @property
    def cache(self) -> Path:
        """What was found out or compiled for this machine; it may be lost, and is then made anew."""
        return self.home_path / "cache"

    @property
    def checkpoints(self) -> Path:
        """`checkpoints/JOB/`: what a training goes on from. On several hosts this must be shared."""
        return self.home_path / "checkpoints"

    @property
    def job_logs(self) -> Path:
        """`JOB.log`: what the processes of a job that ran on this host have written."""
        return self.home_path / "logs" / "jobs"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
