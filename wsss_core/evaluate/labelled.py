"""Which images' true masks are learned from; only the others may score what is built on these."""

from __future__ import annotations

from wsss_core import keyed


def is_labelled(image_id: str, share: float, draw: int) -> bool:
    """Whether the true mask of an image is learned from: a hash of its id, the same in every run.

    The images of a smaller share are among those of a larger one, and an added image changes no other's lot. Of a share
    of n images, about that many are drawn, not exactly.

    Parameters
    ----------
    share
        In (0, 1]; at 1 all are.
    draw
        Another number draws other images.

    Examples
    --------
    >>> ["".join(name for name in "abcdefgh" if is_labelled(name, share, 0)) for share in (0.25, 0.5, 1.0)]
    ['d', 'bcdgh', 'abcdefgh']
    """
    return keyed.chance("labelled", draw, image_id) < share
