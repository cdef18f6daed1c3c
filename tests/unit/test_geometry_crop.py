import torch

from deepmac_distill.geometry.crop import cell_coordinates, crop_features


def test_a_crop_of_whole_pixels_is_those_pixels() -> None:
    features = torch.arange(2 * 3 * 6 * 7, dtype=torch.float64).reshape(2, 3, 6, 7)
    crop = crop_features(features, torch.tensor([[2.0, 1, 5, 4]]), torch.tensor([1]), 3)
    torch.testing.assert_close(crop[0], features[1, :, 1:4, 2:5])


def test_crops_come_in_the_order_of_their_boxes() -> None:
    features = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4)
    image_index = torch.tensor([2, 0, 1, 0, 2])
    crops = crop_features(features, torch.tensor([[0.0, 0, 4, 4]]).expand(5, 4), image_index, 5)
    assert crops.shape == (5, 2, 5, 5)
    assert torch.equal(crops[:, 0, 0, 0], image_index.float())


def test_no_boxes_give_no_crops() -> None:
    crops = crop_features(torch.ones(2, 3, 4, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 8)
    assert crops.shape == (0, 3, 8, 8)


def test_half_precision_features_are_sampled_at_exact_positions() -> None:
    features = torch.arange(400.0).expand(1, 1, 2, 400) / 512
    box = torch.tensor([[301.3, 0, 309.7, 2]])
    index = torch.tensor([0])
    crops = crop_features(features.bfloat16(), box, index, 4)
    assert crops.dtype == torch.bfloat16
    expected = crop_features(features.bfloat16().double(), box, index, 4)
    torch.testing.assert_close(crops.double(), expected, rtol=2**-8, atol=0)


def test_only_the_map_of_a_box_gets_its_gradient() -> None:
    features = torch.zeros(2, 1, 4, 4, requires_grad=True)
    crop_features(features, torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([1]), 4).sum().backward()
    assert torch.equal(features.grad[0], torch.zeros(1, 4, 4))
    torch.testing.assert_close(features.grad[1], torch.ones(1, 4, 4))


def test_coordinates_run_from_minus_one_to_one() -> None:
    y, x = cell_coordinates(3)
    assert y.tolist() == [[-1, -1, -1], [0, 0, 0], [1, 1, 1]]
    assert torch.equal(x, y.T)
