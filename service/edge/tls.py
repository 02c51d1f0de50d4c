"""TLS: whether the files that it is to be served with fit together, said at the start."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from service.settings import SettingsError

if TYPE_CHECKING:
    from service.settings import Settings

__all__ = ["check_tls"]


def check_tls(settings: Settings) -> None:
    """Load certificate and key, if there are any, as the web server will.

    Raises:
        SettingsError: They cannot be read, or are not each other's.
    """
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is None:
        if key is not None:
            raise SettingsError("REACTION_TLS_CERTIFICATE_FILE: expected the certificate of that key, got none")
        return
    try:
        # Without a password: a key that has one must not make the start wait for somebody to type it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        expected = "a certificate chain and its key, in PEM, without a password"
        raise SettingsError(f"REACTION_TLS_CERTIFICATE_FILE: expected {expected}, got {error}") from None
