"""The supernet of Auto-DeepLab against plain, slow definitions, its decoded networks and finite differences."""

import copy
import itertools

import pytest
import torch
from torch.nn import functional as F

from benchmarks.auto_deeplab_against_random import computing_alone
from models.auto_deeplab import AutoDeepLab, AutoDeepLabSupernet
from models.auto_deeplab.cell import shrink
from models.auto_deeplab.mixed import normalise
from models.auto_deeplab.supernet import source_levels, two_back_level
from models.layers.blocks import enlarge
from trainer.inspection.costs import TrainingStep, predict_memory
from trainer.runtime.activations import recompute_activations
from utils.architecture.decoding import beta_weights, encode
from utils.architecture.genotype import OPERATIONS, STRIDES, Genotype, cell_edges
from utils.architecture.space import random_genotype
from utils.errors import ConfigError

MIXINGS = ("outputs", "inputs")
ALL_AND_HALF = ({}, {"partial_channels": 1}, {"partial_channels": 2})


def supernet(seed=0, num_classes=3, spread=1.0, **options):
    """A small supernet with visible differences between its operations and moves."""
    torch.manual_seed(seed)
    network = AutoDeepLabSupernet(num_classes, **{"layers": 2, "blocks": 2, "filter_multiplier": 4, **options})
    for logits in network.architecture_parameters():
        torch.nn.init.normal_(logits, std=spread)
    return network.train()


def images(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def norm(maps):
    return F.batch_norm(maps, None, None, training=True)


def convolved(maps, depthwise, pointwise, dilation=1):
    padding = dilation * (depthwise.shape[-1] // 2)
    spread = F.conv2d(maps.relu(), depthwise, padding=padding, dilation=dilation, groups=len(depthwise))
    return norm(F.conv2d(spread, pointwise))


def operated(name, maps, edges, edge):
    """One operation on one edge as the paper and the public code define it."""
    plain = {
        "none": torch.zeros_like,
        "skip": torch.clone,
        "max_pool_3x3": lambda maps: norm(F.max_pool2d(maps, 3, 1, 1)),
        "avg_pool_3x3": lambda maps: norm(F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)),
    }
    if name in plain:
        return plain[name](maps)
    size = int(name[-1])
    depthwise = edges.get_parameter(f"depthwise_{size}")[:, edge]
    pointwise = edges.pointwise[:, size // 2 - 1, edge]
    if name.startswith("sep"):
        return convolved(convolved(maps, depthwise[0], pointwise[0]), depthwise[1], pointwise[1])
    if len(depthwise) > 2:
        return convolved(maps, depthwise[2], pointwise[2], dilation=2)
    dense = edges.get_parameter(f"dense_{size}")[edge]
    return norm(F.conv2d(maps.relu(), dense, padding=size // 2 * 2, dilation=2))


def cell_of_one_source(cell, alpha, strengths, two_back, one_back):
    """A cell edge by edge and operation by operation."""
    states = [two_back, one_back]
    for (block, place), weights, strength in zip(cell_edges(len(cell.edges) - 1), alpha, strengths, strict=True):
        if place == 0:
            states.append(0)
        if states[place] is not None:
            edge = block - max(0, place - 1)
            computed, passed = states[place].tensor_split([one_back.shape[1] // cell.partial_channels], dim=1)
            mixed = sum(
                weight * operated(operation, computed, cell.edges[place], edge)
                for operation, weight in zip(OPERATIONS, weights, strict=True)
            )
            states[-1] = states[-1] + strength * torch.cat([mixed, passed], dim=1)
        if place == block + 1:
            states[-1] = F.channel_shuffle(states[-1], cell.partial_channels)
    return torch.cat(states[2:], dim=1)


def brought(module, maps, size):
    maps = norm(module.convolution(shrink(maps, module.shrink_factor)))
    return enlarge(maps, module.enlarge_factor, size)


def plain_encode(network, inputs, mixing):
    """The maps of the last layer, node by node and source by source."""
    alpha, beta = network.architecture_probabilities()
    strengths = torch.ones(len(alpha)).double()
    if network.edges is not None:
        ends = itertools.accumulate(range(2, network.blocks + 1))
        strengths = torch.cat([logits.softmax(0) for logits in network.edges.tensor_split(list(ends))])
    half, quarter = network.stem(inputs)
    outputs = [[half], [quarter]]
    for layer in range(network.layers):
        maps = []
        for level in range(min(layer + 2, 4)):
            cell, size = network.cells[f"{layer}_{level}"], [-(-side // STRIDES[level]) for side in inputs.shape[2:]]
            sources = [source for source in (level - 1, level, level + 1) if 0 <= source < len(outputs[-1])]
            weights = [beta[layer, source, level - source + 1] for source in sources]
            read = [
                brought(module, outputs[-1][each], size) for module, each in zip(cell.one_back, sources, strict=True)
            ]
            found = two_back_level(layer, level)
            two_back = None if found is None else brought(cell.two_back, outputs[-2][found], size)
            if mixing == "inputs":
                total = sum(weights)
                read = [sum(weight / total * each for weight, each in zip(weights, read, strict=True))]
                weights = [total]
            results = [cell_of_one_source(cell, alpha, strengths, two_back, each) for each in read]
            maps.append(sum(weight * each for weight, each in zip(weights, results, strict=True)).relu())
        outputs.append(maps)
    return outputs[-1]


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize(
    ("filters", "layers", "atrous", "partial"),
    [
        (8, 2, "separable", 1),
        (8, 2, "dense", 1),
        (1, 3, "separable", 1),
        (8, 2, "separable", 4),
        (18, 1, "separable", 2),  # at stride 8 a wide node
        (6, 1, "dense", 3),
        (2, 3, "separable", 2),
    ],
)
def test_grouped_calls_compute_what_each_operation_on_each_edge_would(filters, layers, atrous, partial, mixing):
    network = supernet(
        filter_multiplier=filters, layers=layers, blocks=3, atrous=atrous, mixing=mixing, partial_channels=partial
    ).double()
    image = images(2, 3, 28, 20).double()
    weights = [weight for name, weight in network.named_parameters() if not name.startswith("heads")]
    results = []
    for maps in (network.encode(image), plain_encode(network, image, mixing)):
        total = sum((each * torch.linspace(-1, 2, each.numel()).double().view(each.shape)).sum() for each in maps)
        results.append((maps, torch.autograd.grad(total, weights)))
    (maps, gradients), (plain_maps, plain_gradients) = results
    torch.testing.assert_close(maps, plain_maps, rtol=1e-7, atol=1e-9)
    largest = [each.abs().max() for each in plain_gradients]
    assert all(each > 0 for each in largest)
    for gradient, plain, scale in zip(gradients, plain_gradients, largest, strict=True):
        torch.testing.assert_close(gradient / scale, plain / scale, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mixing", "partial"), [("outputs", 1), ("inputs", 1), ("inputs", 2)])
def test_gradients_of_the_architecture_are_finite_differences(mixing, partial):
    network = supernet(layers=2, blocks=1, filter_multiplier=2, mixing=mixing, partial_channels=partial).double()
    image, step = images(2, 3, 16, 16).double(), 1e-6

    def value():
        return (network(image) * torch.linspace(-1, 1, 2 * 3 * 16 * 16).double().view(2, 3, 16, 16)).sum()

    gradients = torch.autograd.grad(value(), network.architecture_parameters())
    for logits, gradient in zip(network.architecture_parameters(), gradients, strict=True):
        flat, expected = logits.data.view(-1), torch.zeros(logits.numel(), dtype=torch.float64)
        for place in range(len(flat)):
            with torch.no_grad():
                ends = []
                for change in (step, -2 * step):
                    flat[place] += change
                    ends.append(value())
                flat[place] += step
            expected[place] = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(gradient.flatten(), expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
        assert expected.count_nonzero() == (7 if logits is network.beta else len(flat))


def paths_of_one_definition(layers):
    """The paths on which the maps two layers back have the stride of the node, or are the stem's at layer 0."""
    levels = itertools.product(range(4), repeat=layers)
    paths = [path for path in levels if all(abs(a - b) <= 1 for a, b in itertools.pairwise((0, *path)))]
    return [path for path in paths if all(now == then for now, then in zip(path[1:], (0, *path), strict=False))]


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("atrous", ["separable", "dense"])
def test_at_one_hot_parameters_the_encoder_is_that_of_the_decoded_network(mixing, atrous):
    paths = paths_of_one_definition(layers=4)
    assert paths == [(0, 0, 0, 0), (1, 0, 1, 0)]
    network = supernet(layers=4, mixing=mixing, atrous=atrous, filter_multiplier=9)
    image = images(2, 3, 48, 32)
    with torch.no_grad():
        network(image)  # for statistics of some size
    operations = set()
    for seed, path in itertools.product((4, 5), paths):  # with all operations
        blocks = random_genotype(seed, layers=4, blocks=2).blocks
        operations |= {operation for block in blocks for _, operation in block}
        genotype = Genotype(tuple(STRIDES[level] for level in path), blocks)
        for logits, values in zip(network.architecture_parameters(), encode(genotype), strict=True):
            logits.data.copy_(torch.from_numpy(values))
        assert network.decode() == genotype
        decoded = AutoDeepLab(
            3, genotype=genotype.to_json(), filter_multiplier=9, stem_channels=[9, 9, 18], atrous=atrous
        )
        decoded.encoder.load_state_dict(network.encoder_state(genotype))
        for is_training in (False, True):  # training changes the statistics of both
            with torch.no_grad():
                ours = network.train(is_training).encode(image)[path[-1]]
                theirs = decoded.train(is_training).encoder(image)[1]
            assert float(theirs.std()) > 0.01
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
    assert operations == set(OPERATIONS) - {"none"}


@pytest.mark.parametrize(("mixing", "partial"), [("outputs", 1), ("inputs", 2)])
def test_a_supernet_that_computes_a_genotype_alone_has_no_use_for_other_nodes(mixing, partial):
    path = (0, 0, 1, 0, 1)  # nodes beside it read its maps two layers back, and give theirs to it two layers later
    network = supernet(layers=5, blocks=1, filter_multiplier=2, mixing=mixing, partial_channels=partial)
    genotype = Genotype(tuple(STRIDES[level] for level in path), random_genotype(0, layers=5, blocks=1).blocks)
    image, results, plain = images(1, 3, 32, 24), [], []
    used = {f"cells.{layer}_{level}" for layer, level in enumerate(path)} | {"heads.1", "stem"}
    for _ in range(2):
        with torch.no_grad(), computing_alone(network, genotype):
            results.append(network(image))
        with torch.no_grad():
            plain.append(network(image))
            for name, weight in network.named_parameters():
                if name.count(".") and not any(name.startswith(f"{each}.") for each in used):
                    weight.add_(torch.randn_like(weight))
    assert network.decode() == genotype
    assert torch.equal(*results)
    assert not torch.allclose(*plain), "one-hot parameters are not enough"


def test_weights_without_a_counterpart_are_left_out_of_the_decoded_encoder():
    genotype = random_genotype(0, layers=4, blocks=2)
    while genotype.strides != (8, 16, 16, 32):
        genotype = Genotype((8, 16, 16, 32), genotype.blocks)
    decoded = AutoDeepLab(3, genotype=genotype.to_json(), filter_multiplier=4, stem_channels=[4, 4, 8])
    missing, unexpected = decoded.encoder.load_state_dict(supernet(layers=4).encoder_state(genotype), strict=False)
    # Layer 0 reads the stem; layers 1 to 3 change the stride within two layers.
    assert unexpected == []
    assert {name.split(".")[1] for name in missing} == {"1", "2", "3"}
    assert all("two_back" in name for name in missing)


def test_there_are_eight_operations_on_twenty_edges():
    network = AutoDeepLabSupernet(2, layers=1, filter_multiplier=1)
    assert network.alpha.shape == (20, 8)
    assert network.beta.shape == (1, 4, 3)
    assert sorted(edge for group in network.edge_groups for edge in group) == list(range(20))
    assert float(network.alpha.detach().abs().max()) < 0.01


@pytest.mark.parametrize(("layers", "nodes"), [(1, 2), (2, 5), (3, 9), (6, 21)])
def test_what_cannot_be_reached_has_no_weights(layers, nodes):
    network = supernet(layers=layers)
    assert len(network.cells) == nodes
    assert len(network.heads) == min(4, layers + 1)
    assert network.cells["0_1"].two_back is not None
    if layers > 1:
        assert [network.cells[f"1_{level}"].two_back is None for level in range(3)] == [False, True, True]
        assert list(network.cells["1_2"].edges[0].parameters()) == []
        assert len(network.cells["1_2"].one_back) == 1
    assert source_levels(1, 1) == [0, 1]
    network(images(2, 3, 48, 48)).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_moves_are_weighted_among_those_that_are_possible():
    network = supernet(layers=4)
    alpha, beta = network.architecture_probabilities()
    torch.testing.assert_close(alpha.sum(1), torch.ones(5))
    torch.testing.assert_close(beta.detach().double(), torch.from_numpy(beta_weights(network.architecture()[1])))
    (beta * torch.rand_like(beta)).sum().backward()
    assert network.beta.grad.isfinite().all()
    assert torch.equal(network.beta.grad != 0, network.possible_moves)


def test_only_the_architecture_has_gradients():
    network, image = supernet(), images(2, 3, 32, 32)
    network(image).square().sum().backward()
    everything = {name: weight.grad for name, weight in network.named_parameters()}
    network.zero_grad()
    with network.only_architecture():
        network(image).square().sum().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    assert gradients.keys() == {"alpha", "beta"}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, everything[name], rtol=1e-4, atol=1e-5)
    assert all(weight.requires_grad for weight in network.parameters())


def test_norms_that_do_not_track_leave_their_statistics():
    network = supernet()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = copy.deepcopy(network.state_dict())
    for each in norms:
        each.track_running_stats = False
    network(images(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for each in norms:
        each.track_running_stats = True
    network(images(2, 3, 32, 32))
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) >= 2 * len(norms)


@pytest.mark.parametrize(("mixing", "partial"), [("outputs", 1), ("inputs", 2)])
def test_recomputed_cells_have_the_same_gradients_and_statistics(mixing, partial):
    plain = supernet(layers=2, mixing=mixing, partial_channels=partial)
    frugal = copy.deepcopy(plain)
    recompute_activations(frugal, ["cells.*"])
    for network in (plain, frugal):
        network(images(2, 3, 32, 32)).square().sum().backward()
    assert plain.state_dict().keys() == frugal.state_dict().keys()
    for (name, value), other in zip(plain.state_dict().items(), frugal.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, msg=name)
    for (name, weight), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, msg=name)


def test_the_same_seed_gives_the_same_bytes():
    twins = [supernet(seed=5, layers=3) for _ in range(2)]
    for network in twins:
        network(images(2, 3, 33, 47)).square().sum().backward()
    for (name, one), other in zip(twins[0].named_parameters(), twins[1].parameters(), strict=True):
        assert torch.equal(one, other), name
        assert torch.equal(one.grad, other.grad), name


@pytest.mark.parametrize(("mixing", "partial"), [("outputs", 1), ("inputs", 2)])
def test_a_saved_supernet_continues_as_it_was(mixing, partial):
    network = supernet(layers=3, mixing=mixing, partial_channels=partial)
    network(images(2, 3, 40, 40))
    other = supernet(seed=9, layers=3, mixing=mixing, partial_channels=partial)
    other.load_state_dict(network.state_dict())
    image = images(1, 3, 50, 31)
    assert torch.equal(network.eval()(image), other.eval()(image))
    assert [each.tolist() for each in network.architecture()] == [each.tolist() for each in other.architecture()]


@pytest.mark.parametrize("norm_name", ["batch", "group"])
@pytest.mark.parametrize(("size", "channels"), [((1, 1), 1), ((33, 47), 4), ((70, 5), 3)])
def test_a_batch_of_one_image_of_any_size_trains(size, channels, norm_name):
    network = supernet(layers=4, in_channels=channels, blocks=1, filter_multiplier=3, norm=norm_name)
    logits = network(images(1, channels, *size))
    assert logits.shape == (1, 3, *size)
    logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_group_norm_makes_a_sample_independent_of_its_batch():
    network, batch = supernet(layers=3, norm="group"), images(3, 3, 32, 32)
    torch.testing.assert_close(network(batch)[:1], network(batch[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_memory_of_both_mixings_is_predicted_without_running_them():
    def predicted(mixing):
        return predict_memory(
            TrainingStep(
                build_model=lambda: supernet(blocks=1, filter_multiplier=8, mixing=mixing),
                build_criterion=lambda _: torch.nn.CrossEntropyLoss(),
                input_shape=(2, 3, 32, 32),
                target_shape=(2, 32, 32),
            )
        )

    outputs, inputs = predicted("outputs"), predicted("inputs")
    assert 1.1 * inputs < outputs < 3 * inputs


def test_norms_without_momentum_hold_the_means_over_all_batches():
    own = torch.nn.BatchNorm2d(2, affine=False, momentum=None)
    reference = copy.deepcopy(own)
    batches = images(3, 4, 2, 5, 5)
    for number, batch in enumerate(batches):
        reference(batch)
        normalise(own, batch, torch.tensor([0.5, 2.0]))
        mean = batches[: number + 1].mean(dim=(0, 1, 3, 4))
        torch.testing.assert_close(own.running_mean, mean)
    torch.testing.assert_close(own.state_dict(), reference.state_dict())
    torch.testing.assert_close(normalise(own.eval(), batches[0]), reference.eval()(batches[0]))
    torch.testing.assert_close(own.state_dict(), reference.state_dict())


@pytest.mark.parametrize("atrous", ["separable", "dense"])
def test_weights_may_be_plain_tensors_as_in_copies_for_other_devices(atrous):
    network, image = supernet(blocks=1, atrous=atrous), images(2, 3, 32, 32)
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    assert torch.equal(torch.func.functional_call(network, weights, (image,)), network(image))


def test_all_channels_have_no_weights_of_edges():
    plain, same, partial = (supernet(filter_multiplier=4, mixing="inputs", **each) for each in ALL_AND_HALF)
    assert plain.edges is None
    assert len(plain.architecture_parameters()) == 2
    image = images(2, 3, 32, 32)
    assert torch.equal(plain(image), same(image))
    assert plain.state_dict().keys() == partial.state_dict().keys() - {"edges"}
    # Half the channels: a quarter of the weights of 1x1 convolutions.
    sizes = [network.cells["0_0"].edges[1].pointwise.numel() for network in (plain, partial)]
    assert sizes[0] == 4 * sizes[1]


def test_weights_of_edges_are_shares_of_a_block_and_decide_the_genotype():
    network = supernet(blocks=2, partial_channels=2)
    assert network.edges.shape == (5,)
    assert [id(each) for each in network.architecture_parameters()] == list(
        map(id, (network.alpha, network.beta, network.edges))
    )
    torch.testing.assert_close(network.edge_weights().split([2, 3])[1], network.edges[2:].softmax(0))
    torch.nn.init.zeros_(network.alpha)
    for weak, others in ((2, ("one_back", "block_1")), (3, ("two_back", "block_1")), (4, ("two_back", "one_back"))):
        network.edges.data.zero_()[weak] = -1
        assert tuple(name for name, _ in network.decode().blocks[1]) == others


def test_what_partial_channels_cannot_do_is_explained():
    with pytest.raises(ConfigError, match=r"Wrong partial_channels 4: .* filter_multiplier, 6, .* Set it to 2\."):
        AutoDeepLabSupernet(2, filter_multiplier=6, partial_channels=4)
    with pytest.raises(ConfigError, match=r"partial_channels above 1: .* set partial_channels to 1"):
        supernet(partial_channels=2).encoder_state(random_genotype(0, layers=2, blocks=2))


@pytest.mark.parametrize("name", ["layers", "blocks", "filter_multiplier", "partial_channels"])
def test_counts_below_one_are_explained(name):
    with pytest.raises(ConfigError, match=f"Wrong {name} 0: .* Set it to 1 or more"):
        AutoDeepLabSupernet(2, **{name: 0})


def test_a_genotype_of_another_size_is_explained():
    with pytest.raises(ConfigError, match="12 layers and 5 blocks: the supernet has 2 and 2"):
        supernet().encoder_state(random_genotype(0))
