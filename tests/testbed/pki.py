"""The keys and certificates of one cluster: what kubeadm would make, in 0.05 s and without it.

ECDSA P-256 throughout; the service-account key is RSA 2048, because that is what clusters have. One CA serves all
three purposes (serving, clients, front proxy): a testbed has no reason to tell them apart, and every component still
verifies.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = datetime.timedelta(days=30)
CLOCK_SLACK = datetime.timedelta(hours=1)  # tests step clocks
MASTERS = "system:masters"

# file name -> (common name, organization)
CLIENTS = {
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", MASTERS),
    "front-proxy-client": ("front-proxy-client", None),
    "admin": ("kubernetes-admin", MASTERS),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
}


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM files."""

    cert: Path
    key: Path


class Pki:
    """A cluster's certificate authority, living in one folder of PEM files. Make it with `Pki.create`."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.folder = folder
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, folder: Path, name: str, serving: Sequence[str]) -> "Pki":
        """Makes a CA, the API server's serving certificate for `serving` (names and addresses), all of CLIENTS and the
        service-account key pair."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"{name}-ca")
        builder = _builder(subject, subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        pki = cls(folder, builder.sign(key, hashes.SHA256()), key)
        _write(pki.ca.cert, pki._certificate.public_bytes(serialization.Encoding.PEM))
        _write(pki.ca.key, _pem(key))
        pki.issue_server("apiserver", "kube-apiserver", serving)
        for file, (common_name, organization) in CLIENTS.items():
            pki.issue_client(file, common_name, organization)
        pki._make_service_account_key()
        return pki

    @property
    def ca(self) -> Pair:
        return self.pair("ca")

    @property
    def service_account(self) -> Pair:
        """`cert` is the public key that verifies tokens, `key` the private one that signs them."""
        return Pair(self.folder / "sa.pub", self.folder / "sa.key")

    def pair(self, file: str) -> Pair:
        """The paths of a pair by file name, whether issued yet or not."""
        return Pair(self.folder / f"{file}.crt", self.folder / f"{file}.key")

    def issue_client(self, file: str, common_name: str, organization: str | None = None) -> Pair:
        """A client certificate: user `common_name`, group `organization`. A kubelet's is system:node:NAME in
        system:nodes."""
        return self._issue(file, _name(common_name, organization), (), ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_server(self, file: str, common_name: str, serving: Sequence[str]) -> Pair:
        """A serving certificate for DNS names and IP addresses, given as strings."""
        return self._issue(file, _name(common_name), serving, ExtendedKeyUsageOID.SERVER_AUTH)

    def _issue(self, file: str, subject: x509.Name, serving: Sequence[str], usage: x509.ObjectIdentifier) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._certificate.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if serving:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(s) for s in serving]), critical=False)
        pair = self.pair(file)
        _write(pair.cert, builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        _write(pair.key, _pem(key))
        return pair

    def _make_service_account_key(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write(self.service_account.key, _pem(key))
        _write(self.service_account.cert, public)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + VALID_FOR)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
