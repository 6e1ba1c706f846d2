"""Which certificates are believed."""

from __future__ import annotations

import functools
import ssl

import certifi


@functools.cache
def trust() -> ssl.SSLContext:
    """The system's certificate authorities (where private ones are added) and certifi's. Kept, because reading them
    takes 50 ms of CPU; never changed after."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def authorities_pem() -> bytes:
    """The same authorities for what does not take a context."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, trust().get_ca_certs(binary_form=True))).encode("ascii")
