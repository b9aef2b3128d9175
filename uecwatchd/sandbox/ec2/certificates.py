"""DescribeServiceCertificates: the certificate that bundles are sealed for."""

import base64
import hashlib
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2.parameters import Action, Parameters, matches, read_filters
from uecwatchd.sandbox.http.responses import Payload

SERVICE = "compute"
BUNDLING = "image-bundling"
# A second use of the same service, with a certificate that opens no bundle: who takes the first item, or any
# item of the service, gets the wrong one.
OTHER = "password-encryption"
DIGESTS = ("SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512")


def describe(backend: Backend, parameters: Parameters) -> Payload:
    filters = read_filters(parameters)
    certificates = {OTHER: backend.identity.user_certificate, BUNDLING: backend.identity.cloud_certificate}
    found = tuple(
        _item(parameters, usage, pem)
        for usage, pem in certificates.items()
        if matches({"service-type": SERVICE, "certificate-usage": usage}, filters)
    )
    return {"serviceCertificates": {"item": found}}


def _item(parameters: Parameters, usage: str, pem: bytes) -> Payload:
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    asked = parameters.get("FingerprintDigest", "")
    digest = asked if asked in DIGESTS else "SHA-256"
    in_der = parameters.get("Format") == "der"
    return {
        "serviceType": SERVICE,
        "certificateUsage": usage,
        "certificateFormat": "der" if in_der else "pem",
        "certificate": base64.b64encode(der).decode() if in_der else pem.decode(),
        "certificateFingerprintDigest": digest,
        "certificateFingerprint": hashlib.new(digest.replace("-", ""), der).digest().hex(":").upper(),
    }


ACTIONS: Mapping[str, Action] = {"DescribeServiceCertificates": describe}
