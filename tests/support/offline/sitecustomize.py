"""Closes the network to every Python process that has this folder on its PYTHONPATH, and writes down who tried it.

The loopback addresses stay open, because Jupyter's programs talk through them.
"""

import os
import socket

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")
_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _check(host):
    name = host.decode() if isinstance(host, bytes) else str(host)
    if host and not name.startswith(_LOOPBACK):
        with open(os.environ["COMPEDU_TEST_NETWORK_LOG"], "a") as log:
            log.write(name + "\n")
        raise OSError(f"the network is closed in this test: {name}")


def _guarded(function):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return function(self, address)

    return connect


def _resolve(host, *arguments, **named):
    _check(host)
    return _getaddrinfo(host, *arguments, **named)


socket.socket.connect, socket.socket.connect_ex = _guarded(_connect), _guarded(_connect_ex)
socket.getaddrinfo = _resolve
