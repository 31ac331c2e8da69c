"""Signatures of statements: DSSE envelopes, https://github.com/secure-systems-lab/dsse.

A key is a PEM file, as `openssl genpkey -algorithm ed25519` writes it: Ed25519, ECDSA or RSA.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcheck import DISTRIBUTION
from mlcheck.model.errors import UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

    PublicKey = SSlibKey

MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"

PASSWORD = "MLCHECK_KEY_PASSWORD"  # noqa: S105 - the name of a variable
"""Variable with the password of an encrypted key."""

_LARGEST_KEY = 64 * 1024
_SIGNATURES = 20
"""Most signatures of an envelope that are tried."""


def signer(path: Path) -> CryptoSigner:
    """Return what signs with a private key.

    Raises:
        UsageError: the file is no private key that can be used, or the library is not installed.
    """
    serialization = _serialization()
    from securesystemslib.signer import CryptoSigner

    password = os.environ.get(PASSWORD)
    content = _content(path)
    try:
        key = serialization.load_pem_private_key(content, password.encode() if password else None)
        return CryptoSigner(key)
    except TypeError:  # with a password, or without one that was given
        raise UsageError(
            f"{path}: {'not encrypted, but' if password else 'encrypted:'} {PASSWORD} "
            f"{'is set' if password else 'is not set'}.",
            f"Set {PASSWORD} to the key's password, or unset it.",
        ) from None
    except Exception:
        raise UsageError(
            f"{path}: no private key in PEM that can be read, or another password.", _MADE_BY
        ) from None


def public_key(path: Path) -> PublicKey:
    """Return the public key of a file.

    Raises:
        UsageError: the file is no public key that can be used, or the library is not installed.
    """
    serialization = _serialization()
    from securesystemslib.signer import SSlibKey

    content = _content(path)
    if b"PRIVATE KEY" in content:
        raise UsageError(
            f"{path}: a private key.", f"Take the public one: openssl pkey -in {path} -pubout"
        )
    try:
        return SSlibKey.from_crypto(serialization.load_pem_public_key(content))
    except Exception:
        raise UsageError(f"{path}: no public key in PEM that can be read.", _MADE_BY) from None


_MADE_BY = (
    "Keys are made by: openssl genpkey -algorithm ed25519 -out key.pem, "
    "and openssl pkey -in key.pem -pubout -out key.pub"
)


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization

        __import__("securesystemslib.dsse")
    except ImportError:
        raise UsageError(
            "Signatures need libraries that are not installed.",
            "Install them beside mlcheck: pip install 'securesystemslib[crypto]', or "
            f"pipx inject {DISTRIBUTION} 'securesystemslib[crypto]'.",
        ) from None
    return serialization


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_KEY + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.", _MADE_BY) from None
    if len(content) > _LARGEST_KEY:
        raise UsageError(f"{path}: larger than any key.", _MADE_BY)
    return content


def signed(payload: bytes, payload_type: str, by: CryptoSigner) -> bytes:
    """Return a DSSE envelope, as JSON."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(by)
    return (json.dumps(envelope.to_dict(), indent=1) + "\n").encode()


def opened(content: bytes, payload_type: str, key: PublicKey | None) -> tuple[bytes, bool]:
    """Return the payload of an envelope from anybody, and whether the key has signed it.

    The ids of keys in an envelope are only hints, says the specification: each signature is tried.

    Raises:
        ValueError: it is no envelope with such a payload; the message completes a sentence.
    """
    try:
        data = json.loads(content)
        if data["payloadType"] != payload_type:
            raise ValueError
        payload = base64.b64decode(data["payload"], validate=True)
        found = [
            base64.b64decode(one["sig"], validate=True) for one in data["signatures"][:_SIGNATURES]
        ]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise ValueError("is no envelope of a statement") from None
    if key is None:
        return payload, False
    return payload, any(_is_of(key, one, payload, payload_type) for one in found)


def _is_of(key: PublicKey, signature: bytes, payload: bytes, payload_type: str) -> bool:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
    from securesystemslib.signer import Signature

    signed_text = Envelope(payload, payload_type, {}).pae()
    try:
        key.verify_signature(Signature(key.keyid, signature.hex()), signed_text)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True
