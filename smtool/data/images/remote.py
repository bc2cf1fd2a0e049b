"""A file on a web server, read once in order; a connection that stalls, breaks or ends early is renewed where it stopped."""

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Protocol, cast

ATTEMPTS = 5
TIMEOUT = 60.0
_PERMANENT = range(400, 500)
_BUSY = (408, 425, 429)
_FAILURES = (OSError, http.client.HTTPException)
_PIECE = 2**16


class _Response(Protocol):
    status: int
    headers: http.client.HTTPMessage

    def read1(self, size: int) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Patience:
    """How long to try. timeout: seconds without a byte after which a connection is given up; attempts: connections in a row
    without a new byte after which the file is given up; pause: seconds before the second of them, doubled before each further.
    """

    timeout: float = TIMEOUT
    attempts: int = ATTEMPTS
    pause: float = 1.0


class RemoteFile:
    """The bytes of an http or https URL in order. read raises OSError, with the URL and the reason, when patience ends."""

    def __init__(self, url: str, patience: Patience) -> None:
        self._url, self._patience = url, patience
        self._response: _Response | None = None
        self._position = 0
        self._length: int | None = None

    def read(self, size: int) -> bytes:
        """Up to `size` of the next bytes; b"" at the end of the file."""
        reason: object = ""
        for attempt in range(self._patience.attempts):
            if attempt:
                time.sleep(self._patience.pause * 2 ** (attempt - 1))
            try:
                self._response = self._response or self._connected()
                data = self._response.read1(size)
                if data or self._position == (self._length if self._length is not None else self._position):
                    self._position += len(data)
                    return data
                reason = f"ended after {self._position:,} of {self._length:,} bytes"
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                if error.code in _PERMANENT and error.code not in _BUSY:
                    raise OSError(f"{self._url}: {reason}") from error
            except _Changed as error:
                raise OSError(f"{self._url}: {error}") from error
            except TimeoutError:
                reason = f"no byte for {self._patience.timeout:g} seconds at {self._position:,}"
            except _FAILURES as error:
                reason = str(error) or type(error).__name__
            self.close()
        raise OSError(f"{self._url}: {reason}, {self._patience.attempts} times")

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None

    def _connected(self) -> _Response:
        """A response whose next byte is that of the position. A server that knows no ranges sends the file from its start."""
        asked = urllib.request.Request(self._url, headers={"Range": f"bytes={self._position}-"} if self._position else {})
        response = cast(_Response, urllib.request.urlopen(asked, timeout=self._patience.timeout))
        start = self._position if response.status == 206 else 0
        rest = response.headers.get("Content-Length")
        length = None if rest is None else start + int(rest)
        if self._length not in (None, length):
            response.close()
            raise _Changed(f"had {self._length:,} bytes, and has {'an unknown number' if length is None else f'{length:,}'} now")
        self._length = length
        while start < self._position:
            skipped = response.read1(min(_PIECE, self._position - start))
            if not skipped:
                response.close()
                raise ConnectionError(f"ended after {start:,} of {self._length or 'an unknown number of'} bytes")
            start += len(skipped)
        return response


class _Changed(Exception):
    """The file is another one than at the first connection."""
