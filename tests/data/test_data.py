"""The embedded digits and the networks made for them."""

from __future__ import annotations

import zipfile
from importlib.resources import files

import numpy as np
import pytest
import torch

from exan_verify.data import (
    accuracy,
    initialised_network,
    load_mnist,
    mnist_batch,
    to_inputs,
    trained_network,
)
from exan_verify.errors import InputError


def test_the_digits_are_all_there_and_read_only():
    images, labels = load_mnist()
    assert (images.shape, images.dtype) == ((5000, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((5000,), np.int64)
    assert np.bincount(labels).tolist() == [500] * 10
    assert not images.flags.writeable
    assert len(np.unique(images.reshape(5000, -1), axis=0)) == 5000
    assert 20 < images.mean() < 50, "digits are mostly black"


def test_the_container_holds_no_pickle_and_has_its_licence_beside_it():
    folder = files("exan_verify.data")
    with zipfile.ZipFile(str(folder.joinpath("mnist_5k.npz"))) as archive:
        assert sorted(archive.namelist()) == ["images.npy", "labels.npy"]
    assert "LeCun" in folder.joinpath("LICENSE-MNIST.txt").read_text()


def test_inputs_are_pixels_between_zero_and_one():
    x = to_inputs(np.array([[[0, 255], [51, 102]]], dtype=np.uint8))
    assert x.dtype == np.float32
    assert np.array_equal(x, np.array([[0, 1, 0.2, 0.4]], dtype=np.float32))


def test_batches_are_distinct_real_digits_chosen_by_the_seed():
    x, y = mnist_batch(16, 3)
    again, _ = mnist_batch(16, 3)
    other, _ = mnist_batch(16, 4)
    assert x.shape == (16, 784)
    assert y.shape == (16,)
    assert np.array_equal(x, again)
    assert not np.array_equal(x, other)
    assert len(np.unique(x, axis=0)) == 16
    for size in (0, 5001):
        with pytest.raises(InputError, match="5000 embedded"):
            mnist_batch(size, 0)


def test_initialised_networks_follow_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = initialised_network((4, 3, 2), 1), initialised_network((4, 3, 2), 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first[0].weight, second[0].weight)
    assert [type(m).__name__ for m in first] == ["Linear", "ReLU", "Linear"]
    with pytest.raises(InputError, match="widths"):
        initialised_network((4,))


def test_training_reaches_its_accuracy():
    model = trained_network((784, 64, 10), seed=1)
    images, labels = load_mnist()
    assert accuracy(model, torch.from_numpy(to_inputs(images)), torch.tensor(labels)) >= 0.97


def test_networks_that_do_not_fit_the_digits_are_refused():
    with pytest.raises(InputError, match="784 inputs and 10 outputs"):
        trained_network((20, 10))
