import pytest
import torch
from torch import nn

import prunebook as pb


def count(model, name):
    return sum(p.numel() for key, p in model.named_parameters() if key.endswith(name))


@pytest.mark.parametrize(
    ("make", "weights", "biases"), [(pb.lenet_300_100, 266_200, 410), (pb.lenet5, 430_500, 580)]
)
def test_lenets_have_the_published_number_of_parameters(make, weights, biases):
    model = make()
    assert (count(model, "weight"), count(model, "bias")) == (weights, biases)
    assert type(model) is nn.Sequential
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_mlp_puts_a_new_activation_between_each_two_layers_and_none_after_the_last():
    model = pb.mlp([784, 30, 20, 10], activation=nn.PReLU)
    kinds = [type(layer) for layer in model]
    assert kinds == [nn.Flatten, nn.Linear, nn.PReLU, nn.Linear, nn.PReLU, nn.Linear]
    assert model[2] is not model[4]


def test_mlp_of_two_sizes_is_a_linear_classifier():
    images = torch.randn(2, 1, 28, 28)
    model = pb.mlp([784, 10])
    torch.testing.assert_close(model(images), images.reshape(2, 784) @ model[1].weight.T + model[1].bias)


def test_mlp_without_bias_maps_zero_to_zero():
    model = pb.mlp([784, 30, 10], bias=False)
    assert count(model, "bias") == 0
    assert not model(torch.zeros(2, 1, 28, 28)).any()


@pytest.mark.parametrize("sizes", [[], [784], [784, 0, 10], [784, -1], [784, 2.5, 10], ["784", 10]])
def test_mlp_refuses_bad_sizes_and_shows_them(sizes):
    with pytest.raises(ValueError, match="at least two whole numbers") as error:
        pb.mlp(sizes)
    assert str(sizes) in str(error.value)


def test_random_shift_moves_a_batch_by_at_most_that_many_pixels_and_only_in_training():
    image = torch.zeros(2, 1, 5, 5)
    image[..., 2, 2] = 1
    shift = pb.RandomShift(1)
    torch.manual_seed(0)
    moved = torch.stack([shift(image) for _ in range(200)])
    assert (moved.sum(dim=(-1, -2, -3)) == 1).all()  # the dot is somewhere, in every image
    assert torch.equal(moved[:, 0], moved[:, 1])  # one move for the whole batch
    assert int((moved.sum(dim=0)[0, 0] > 0).sum()) == 9  # all nine places around the middle, and no other
    assert torch.equal(shift.eval()(image), image)
    assert torch.equal(pb.RandomShift(0)(image), image)


@pytest.mark.parametrize("pixels", [-1, 0.5, True])
def test_random_shift_refuses_what_is_no_number_of_pixels(pixels):
    with pytest.raises(ValueError, match=f"pixels must be a whole number of at least 0, got {pixels}"):
        pb.RandomShift(pixels)
