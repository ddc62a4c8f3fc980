"""Names of images by what they show."""

import torch

from boresight.features.image_hash import image_key

GENERATOR = torch.Generator().manual_seed(7)
IMAGES = torch.randint(0, 256, (2, 3, 96, 128), generator=GENERATOR, dtype=torch.uint8)


def test_an_image_is_its_bytes_shape_and_type():
    image = IMAGES[0]
    keys = {image_key(x) for x in (image, image.reshape(3, 128, 96), image.float(), IMAGES[1], image.view(torch.int8))}
    assert len(keys) == 5
    assert image_key(image.clone()) == image_key(image)
    assert image_key(image.permute(1, 2, 0)) == image_key(image.permute(1, 2, 0).contiguous())


def test_a_tensor_is_hashed_once_until_it_is_written_to(monkeypatch):
    import hashlib

    count, real = [], hashlib.blake2b
    monkeypatch.setattr(hashlib, "blake2b", lambda *a, **k: count.append(1) or real(*a, **k))
    image = torch.zeros(3, 4, 4)
    first = image_key(image)
    assert image_key(image) == first
    assert len(count) == 1
    image[0, 0, 0] = 1
    assert image_key(image) != first
    with torch.inference_mode():
        unversioned = torch.zeros(3, 4, 4)
    assert image_key(unversioned) == image_key(unversioned) == first
