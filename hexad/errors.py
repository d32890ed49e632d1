"""Every error a user can meet.

    HexadError
    ├── BadRequest            400  the request cannot be served as asked
    │   ├── ContextTooLong    400  prompt and answer do not fit the model's context
    │   └── UnknownOption     400  a parameter or key that Hexad does not know
    ├── Unauthorized          401  no key, or none that this server knows
    ├── Forbidden             403  the key, the origin or the host may not do this
    ├── NotFound              404  no such model or request
    ├── Overloaded            429  the queue is full
    ├── RequestFailed         500  this one request broke while it ran; others go on
    │   └── Unsatisfiable     400  its own parameters leave it no token
    ├── EngineUnavailable     503  the engine is starting, draining or gone
    ├── DeadlineExceeded      504  the request's time was over before it was complete
    ├── CheckpointError       a model directory that cannot be read as it is
    ├── ConfigError           a setting that cannot be met
    │   └── OutOfMemory       the memory plan does not fit
    └── KernelError           a kernel was called with arrays it cannot take

A message says what was found, what is allowed, and what to do next.
"""

from __future__ import annotations


class HexadError(Exception):
    """Base of all of them.

    `param` is the name of the offending parameter as the user wrote it, if there is one;
    `code` a stable machine-readable word; `status` the HTTP status a server answers with.
    """

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code


class BadRequest(HexadError):
    status = 400
    code = "invalid_value"


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"


class UnknownOption(BadRequest):
    code = "unknown_parameter"


class Unauthorized(HexadError):
    status = 401
    code = "invalid_api_key"


class Forbidden(HexadError):
    status = 403
    code = "forbidden"


class NotFound(HexadError):
    status = 404
    code = "not_found"


class Overloaded(HexadError):
    status = 429
    code = "queue_full"


class RequestFailed(HexadError):
    code = "request_failed"


class Unsatisfiable(RequestFailed):
    status = 400
    code = "unsatisfiable"


class EngineUnavailable(HexadError):
    status = 503
    code = "engine_unavailable"


class DeadlineExceeded(HexadError):
    status = 504
    code = "deadline_exceeded"


class CheckpointError(HexadError):
    code = "bad_checkpoint"


class ConfigError(HexadError):
    code = "bad_setting"


class OutOfMemory(ConfigError):
    code = "out_of_memory"


class KernelError(HexadError):
    code = "bad_kernel_call"
