"""Every error charrnn raises on purpose, each with the exit code the command line gives it.

CharrnnError                    1   anything below
├── RequestError                2   a prompt or parameter that cannot be served as given
├── DataError                   3   a corpus that cannot be read or is too small
├── ConfigError                 3   settings that contradict each other or what there is
├── CheckpointError             3   a run or checkpoint that is missing, damaged or foreign
├── BundleError                 3   an exported model that is missing, damaged or foreign
├── CallbackError               1   a callback of the caller's failed while a model was trained
├── DivergedError               4   training produced numbers that are not finite
├── ParityError                 5   an exported graph does not compute what the model computes
├── EngineError                 70  decoding threads failed again and again
└── ServerError                 1   the server ended a stream or failed
    ├── ServerBusyError         1   the server's queue is full
    └── ServerUnavailableError  69  no server answers at the address, or it is stopping
"""


class CharrnnError(Exception):
    """Base of all errors charrnn raises on purpose; the message is one line for people."""

    exit_code = 1


class RequestError(CharrnnError, ValueError):
    """A prompt or parameter that cannot be served as given."""

    exit_code = 2


class DataError(CharrnnError):
    """A corpus that cannot be read or is too small."""

    exit_code = 3


class ConfigError(CharrnnError):
    """Settings that contradict each other, an existing run or what there is on this machine."""

    exit_code = 3


class CheckpointError(CharrnnError):
    """A run or checkpoint that is missing, damaged or foreign."""

    exit_code = 3


class BundleError(CharrnnError):
    """An exported model that is missing, damaged or foreign."""

    exit_code = 3


class CallbackError(CharrnnError):
    """A callback of the caller's failed while a model was trained; its exception is the cause."""


class DivergedError(CharrnnError):
    """Training produced numbers that are not finite."""

    exit_code = 4


class ParityError(CharrnnError):
    """An exported graph does not compute what the model computes."""

    exit_code = 5


class EngineError(CharrnnError):
    """Decoding threads failed again and again: start the process anew."""

    exit_code = 70


class ServerError(CharrnnError):
    """The server ended a stream or failed."""


class ServerBusyError(ServerError):
    """The server's queue is full."""


class ServerUnavailableError(ServerError):
    """No server answers at the address, or it is stopping."""

    exit_code = 69
