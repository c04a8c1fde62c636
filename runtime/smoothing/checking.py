"""Checks of a certificate that need its bundle: is it about these files, and are its votes drawn again the same?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.smoothing.artefact import Artefact, image_sha256
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.sampler import Job
from dualsmooth.runtime.statistics.votes import Request, Requests, Tally


def require_bundle(certificate: Certificate, bundle: Bundle) -> None:
    """Raises `CertificateError` unless the certificate is about the bundle's files."""
    stated, terms, b = certificate.artefact, certificate.terms, bundle
    if stated.manifest_sha256 != b.manifest_sha256 or dict(stated.files) != dict(b.files):
        raise CertificateError(f"the certificate is about other files than the bundle {b.path}")
    if stated.precision != b.precision:
        raise CertificateError(
            f"the certificate states precision {stated.precision[:20]!r}; the bundle {b.path} is in {b.precision}"
        )
    if stated.preprocessing != b.preprocessing:
        raise CertificateError(f"the certificate states another preprocessing of pictures than the bundle {b.path}")
    if (terms.sigmas, terms.sigma_e, terms.classes, terms.sure) != (b.sigmas, b.sigma_e, len(b.classes), b.sure):
        raise CertificateError(f"the certificate states other noise levels or classes than the bundle {b.path}")


def require_image(certificate: Certificate, pixels: npt.NDArray[np.float32]) -> None:
    """Raises `CertificateError` unless the certificate is about the image of these pixels [C,H,W]."""
    if image_sha256(pixels) != certificate.artefact.image_sha256:
        raise CertificateError("the image is not the one that the certificate is about")


def replay_job(certificate: Certificate, pixels: npt.NDArray[np.float32]) -> Job:
    """The work of drawing a certificate's votes again from its seed: exactly its looks."""
    return Job(pixels, certificate.drawn_seed, certificate.terms.tally(), looks_of(certificate.tally))


def require_replayed(certificate: Certificate, drawn: Tally, here: Artefact) -> None:
    """Raises `CertificateError` unless the votes that were `drawn` again are those that the certificate states."""
    if drawn.to_dict() == certificate.tally.to_dict():
        return
    issuer = certificate.voted
    why = f": it was issued on {issuer.provider}, {issuer.engine}, whose kernels round otherwise; replay there"
    why = "" if (issuer.provider, issuer.engine) == (here.provider, here.engine) else why
    raise CertificateError(
        f"replay on {here.provider}, {here.engine} drew other votes than the certificate states{why}"
    )


def looks_of(stated: Tally) -> Requests:
    """Ask for exactly the looks that another tally holds."""
    for stream, looks in stated.looks.items():
        for look in looks:
            yield [Request(stream, int(look.sum()))]
