"""Who is the owner in a test? An invented account, and the devices that sign in to it as the real client does."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import secrets
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from audible_files import ACTIVATION_BYTES

DEVICE_TYPE = "A2CZJZGLK2JJVM"


@functools.cache
def _private_key() -> rsa.RSAPrivateKey:
    """Return the key of all devices of this process; they still differ by their tokens, which are part of what is signed."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def _pem() -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return _private_key().private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _random(size: int) -> str:
    return base64.b64encode(secrets.token_bytes(size)).decode()


@dataclass(kw_only=True)
class Account:
    """A customer of Audible; nobody's."""

    owner: str = "Ada Keeper"
    customer: str = "amzn1.account.OWNTESTACCOUNT1"
    activation_bytes: bytes = ACTIVATION_BYTES

    def activation_blob(self) -> bytes:
        """Return what the activation bytes are taken from: a head, then eight lines of 70 bytes that begin with them."""
        lines = struct.pack("<I", int.from_bytes(self.activation_bytes, "big")) + bytes(range(65, 70)) * 111 + b"x"
        return b"(group_id=0) head\n" + b"".join(lines[at : at + 70] + b"\n" for at in range(0, 560, 70))


@dataclass(kw_only=True)
class Device:
    """One registration. ``market`` is the country code it signed in at; ``registered`` ends with its deregistration."""

    account: Account
    serial: str
    market: str = "us"
    with_username: bool = False
    registered: bool = True
    adp_token: str = field(
        default_factory=lambda: (
            f"{{enc:{_random(96)}}}{{key:{_random(32)}}}{{iv:{_random(16)}}}{{name:{_random(12)}}}{{serial:Mg==}}"
        )
    )
    access_token: str = field(default_factory=lambda: f"Atna|{secrets.token_hex(24)}")
    refresh_token: str = field(default_factory=lambda: f"Atnr|{secrets.token_hex(24)}")

    @property
    def info(self) -> dict[str, str]:
        return {
            "device_name": f"{self.account.owner}'s Audible for iPhone",
            "device_serial_number": self.serial,
            "device_type": DEVICE_TYPE,
        }

    @property
    def customer_info(self) -> dict[str, str]:
        given = self.account.owner.split(maxsplit=1)[0]
        return {
            "account_pool": "Amazon",
            "user_id": self.account.customer,
            "home_region": "NA",
            "name": self.account.owner,
            "given_name": given,
        }

    def identity(self) -> dict[str, Any]:
        """Return the document of an auth file, as the real client and audible-cli keep it."""
        return {
            "website_cookies": {"session-id": "000-0000000-0000000", "x-main": "own-cookie"},
            "adp_token": self.adp_token,
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "device_private_key": _pem(),
            "store_authentication_cookie": {"cookie": "own-store-cookie"},
            "device_info": self.info,
            "customer_info": self.customer_info,
            "expires": datetime.now(UTC).timestamp() + 3600,
            "locale_code": self.market,
            "with_username": self.with_username,
            "activation_bytes": None,
        }

    def registration(self) -> dict[str, Any]:
        """Return what the service answers to a registration that succeeded."""
        tokens = {
            "website_cookies": [{"Name": "session-id", "Value": '"000-0000000-0000000"'}],
            "store_authentication_cookie": {"cookie": "own-store-cookie"},
            "mac_dms": {"adp_token": self.adp_token, "device_private_key": _pem()},
            "bearer": {
                "access_token": self.access_token,
                "refresh_token": self.refresh_token,
                "expires_in": "3600",
            },
        }
        extensions = {"device_info": self.info, "customer_info": self.customer_info}
        success = {"tokens": tokens, "extensions": extensions, "customer_id": self.account.customer}
        return {"response": {"success": success}, "request_id": "OWNREQUEST"}

    def secrets(self) -> list[str]:
        """Return what may show nowhere."""
        key = "".join(_pem().splitlines()[1:-1])
        return [self.adp_token, self.access_token, self.refresh_token, key[:64], self.account.activation_bytes.hex()]

    def signed_at(self, method: str, target: str, body: bytes, signature: str) -> datetime | None:
        """Return when a request was signed by this device, None if it was not."""
        mark, _, date = signature.partition(":")
        text = f"{method}\n{target}\n{date}\n{body.decode()}\n{self.adp_token}".encode()
        try:
            _private_key().public_key().verify(base64.b64decode(mark), text, padding.PKCS1v15(), hashes.SHA256())
            return datetime.fromisoformat(date.removesuffix("Z"))
        except (InvalidSignature, ValueError):
            return None

    def sealed(self, asin: str, voucher: dict[str, Any]) -> str:
        """Return a voucher as the service sends it: only this device, for this title, can open it."""
        digest = hashlib.sha256(f"{DEVICE_TYPE}{self.serial}{self.account.customer}{asin}".encode()).digest()
        clear = json.dumps(voucher, separators=(",", ":")).encode()
        cipher = Cipher(algorithms.AES(digest[:16]), modes.CBC(digest[16:])).encryptor()
        return base64.b64encode(cipher.update(clear + bytes(-len(clear) % 16))).decode()


@dataclass(frozen=True)
class SignIn:
    """What an owner who signed in has allowed: the device that may be registered with the code of the address shown at the end."""

    account: Account
    challenge: str
    client_id: str
    market: str
    with_username: bool


def signed_in(address: str, account: Account) -> tuple[str, SignIn]:
    """Open the address of a sign-in as its owner's browser does: return the address it ends at, and what that allows.

    AssertionError where the real pages would refuse.
    """
    url = urlsplit(address)
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    host = url.hostname or ""
    assert host.startswith(("www.amazon.", "www.audible.")), address
    assert url.path == "/ap/signin", address
    assert asked["openid.oa2.response_type"] == "code"
    assert asked["openid.oa2.code_challenge_method"] == "S256"
    code = f"OWNCODE{secrets.token_hex(8)}"
    allowed = SignIn(
        account=account,
        challenge=asked["openid.oa2.code_challenge"],
        client_id=asked["openid.oa2.client_id"].removeprefix("device:"),
        market=asked["openid.assoc_handle"].rpartition("_")[2],
        with_username=host.startswith("www.audible."),
    )
    back = urlencode({"openid.oa2.authorization_code": code, "openid.mode": "id_res", "openid.ns": "own"})
    return f"{asked['openid.return_to']}?{back}", allowed


def code_of(address: str) -> str:
    """Return the code in the address that a sign-in ended at."""
    return parse_qs(urlsplit(address).query)["openid.oa2.authorization_code"][0]


def fits(allowed: SignIn, auth_data: dict[str, Any], serial: str) -> bool:
    """Whether a registration comes from who began the sign-in: same secret verifier, same device."""
    verifier = auth_data.get("code_verifier", "").encode()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
    client_id = f"{serial}#{DEVICE_TYPE}".encode().hex()
    return challenge == allowed.challenge and client_id == allowed.client_id == auth_data.get("client_id")
