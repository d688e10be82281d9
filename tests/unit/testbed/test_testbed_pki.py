"""The certificates of a cluster, as their readers see them."""

import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed.pki import CLIENTS, Pki


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki"), "hub", ["localhost", "127.0.0.1", "10.96.0.1"])


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_serving_certificate_names_every_way_to_reach_the_api_server(pki: Pki) -> None:
    names = read(pki.pair("apiserver").cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("10.96.0.1"),
    ]


@pytest.mark.parametrize("file", [*CLIENTS, "apiserver"])
def test_every_certificate_is_signed_by_the_ca_and_fits_its_key(pki: Pki, file: str) -> None:
    certificate, key = read(pki.pair(file).cert), load_pem_private_key(pki.pair(file).key.read_bytes(), None)
    certificate.verify_directly_issued_by(read(pki.ca.cert))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert certificate.public_key() == key.public_key()


@pytest.mark.parametrize(("file", "user", "group"), [(file, *subject) for file, subject in CLIENTS.items()])
def test_a_client_is_known_by_common_name_and_organization(pki: Pki, file: str, user: str, group: str | None) -> None:
    certificate = read(pki.pair(file).cert)
    subject = {attribute.oid: attribute.value for attribute in certificate.subject}
    assert subject[NameOID.COMMON_NAME] == user
    assert subject.get(NameOID.ORGANIZATION_NAME) == group
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_only_the_ca_may_sign_certificates(pki: Pki) -> None:
    for file, is_ca in (("ca", True), ("apiserver", False), ("admin", False)):
        extensions = read(pki.pair(file).cert).extensions
        assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is is_ca
        assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is is_ca


def test_service_account_tokens_are_verified_by_the_public_half_of_their_key(pki: Pki) -> None:
    private = load_pem_private_key(pki.service_account.key.read_bytes(), None)
    assert private.public_key() == load_pem_public_key(pki.service_account.cert.read_bytes())


def test_nobody_else_can_read_a_private_key(pki: Pki) -> None:
    for key in pki.folder.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key


def test_two_clusters_do_not_trust_each_other(pki: Pki, tmp_path: Path) -> None:
    other = Pki.create(tmp_path, "hub", ["localhost"])
    with pytest.raises(InvalidSignature):
        read(other.pair("admin").cert).verify_directly_issued_by(read(pki.ca.cert))


def test_a_kubelet_can_be_issued_its_identity_later(pki: Pki) -> None:
    pair = pki.issue_client("kubelet-a", "system:node:a", "system:nodes")
    assert read(pair.cert).subject.rfc4514_string() == "O=system:nodes,CN=system:node:a"
