"""Genotypes: their space and its counts, decoding, and reading them from elsewhere."""

import itertools
import json
import math

import numpy as np
import pytest

from utils.architecture.decoding import alpha_weights, beta_weights, decode, encode, entropy_shares, possible_moves
from utils.architecture.genotype import OPERATIONS, STRIDES, Genotype, cell_edges, input_names
from utils.architecture.reading import genotype_of_arrays, published_genotype, read_genotype
from utils.architecture.space import count_cells, count_decoded_cells, count_paths, random_genotype
from utils.errors import ConfigError, TrainingError

CELL = ((("two_back", "skip"), ("one_back", "sep_conv_3x3")),)


def number(name):
    return OPERATIONS.index(name)


def all_paths(layers):
    """The levels of every path, by trying out all lists of levels."""
    for levels in itertools.product(range(4), repeat=layers):
        if all(abs(a - b) <= 1 for a, b in itertools.pairwise((0, *levels))):
            yield levels


def softmax(logits):
    exponentials = [math.exp(each - max(logits)) for each in logits]
    return [each / sum(exponentials) for each in exponentials]


def path_probability(levels, beta):
    """The product of the normalized moves, written down move by move."""
    probability = 1.0
    for layer, (source, target) in enumerate(itertools.pairwise((0, *levels))):
        targets = [level for level in (source - 1, source, source + 1) if 0 <= level <= 3]
        weights = softmax([beta[layer][source][level - source + 1] for level in targets])
        probability *= weights[targets.index(target)]
    return probability


# ---- The space ------------------------------------------------------------------------------------------------------


def test_the_space_has_the_published_counts():
    assert count_paths(12) == 75_025
    assert count_paths(12, first_strides=(4,)) == 28_657  # 11 free moves from stride 4, as in the paper
    assert count_cells(5) == (2 * 3 * 4 * 5 * 6) ** 2 * 8**10 == pytest.approx(5.57e14, rel=1e-3)
    assert count_decoded_cells(5) == (1 * 3 * 6 * 10 * 15) * 7**10
    assert len(cell_edges(5)) == 20
    assert cell_edges(2) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert input_names(3) == ("two_back", "one_back", "block_1", "block_2")


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 6])
def test_paths_are_counted_as_they_can_be_listed(layers):
    assert count_paths(layers) == len(list(all_paths(layers)))


def test_random_paths_are_uniform_among_all_paths():
    counts = dict.fromkeys(all_paths(3), 0)
    generator = np.random.default_rng(0)
    draws = 400 * len(counts)
    for _ in range(draws):
        counts[random_genotype(generator, layers=3, blocks=1).levels] += 1
    expected = draws / len(counts)
    squares = sum((count - expected) ** 2 / expected for count in counts.values())
    # Chi-squared with one degree of freedom less than there are paths: six standard deviations above its mean.
    assert squares < len(counts) - 1 + 6 * math.sqrt(2 * (len(counts) - 1))
    # A random walk would take the path that stays at stride 4 with probability 1 / 8.
    assert counts[0, 0, 0] < draws / 9


def test_random_blocks_take_every_pair_of_inputs_and_every_operation():
    generator = np.random.default_rng(0)
    blocks = [random_genotype(generator, layers=1, blocks=2).blocks[1] for _ in range(600)]
    pairs = [tuple(name for name, _ in block) for block in blocks]
    assert {pair: pairs.count(pair) > 150 for pair in pairs} == {
        ("two_back", "one_back"): True,
        ("two_back", "block_1"): True,
        ("one_back", "block_1"): True,
    }
    for side in range(2):
        assert {block[side][1] for block in blocks} == set(OPERATIONS[1:])


def test_a_random_genotype_follows_from_its_seed():
    assert random_genotype(17) == read_genotype("random:17") == random_genotype(np.random.default_rng(17))
    assert random_genotype(17) != random_genotype(18)
    assert random_genotype(3, layers=200, blocks=8).num_layers == 200  # more paths than any 64-bit number


# ---- Genotypes ------------------------------------------------------------------------------------------------------


def test_equal_networks_are_equal_genotypes():
    one = Genotype((4, 8), CELL)
    other = Genotype.from_json({"strides": [4, 8], "blocks": [{"one_back": "sep_conv_3x3", "two_back": "skip"}]})
    assert one == other
    assert len({one, other, Genotype([np.uint8(4), np.int64(8)], [[list(pair) for pair in CELL[0][::-1]]])}) == 1
    assert Genotype((4, 4), CELL) != one
    assert (one.levels, one.num_layers, one.num_blocks) == ((0, 1), 2, 1)


@pytest.mark.parametrize(("layers", "blocks"), [(1, 1), (3, 2), (12, 5), (20, 8)])
def test_a_genotype_is_the_same_after_json(layers, blocks):
    for seed in range(20):
        genotype = random_genotype(seed, layers, blocks)
        assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


def faulty(strides=(4, 8), **block):
    return {"strides": list(strides), "blocks": [{"two_back": "skip", "one_back": "skip"}, block]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([4, 8], "genotype is [4, 8], not a genotype"),
        ({"strides": [4]}, 'has no "blocks"'),
        ({"stride": [4], "blocks": []}, 'genotype: unknown key "stride". Did you mean "strides"?'),
        (faulty([4, 16]), "genotype.strides.1 is 16 after 4: the strides of neighbouring layers differ by a factor"),
        (faulty([4, 8, 16, 4]), "genotype.strides.3 is 4 after 16: .* Set 8, 16 or 32."),
        (faulty([16, 8]), "genotype.strides.0 is 16: the first layer follows a stem of stride 4. Set 4 or 8."),
        (faulty([4, 6]), "genotype.strides.1 is 6: a layer has stride 4, 8, 16 or 32. Set 4 or 8."),
        (faulty([True]), "genotype.strides.0 is true"),
        (faulty([4.0]), "genotype.strides.0 is 4.0"),
        (faulty([4, "8"]), 'genotype.strides.1 is "8"'),
        (faulty([]), "genotype.strides is empty"),
        ({"strides": "4, 8", "blocks": []}, 'genotype.strides is "4, 8": it must be a list'),
        ({"strides": [4], "blocks": []}, r"genotype.blocks is \[\]: it must be a list of the blocks"),
        ({"strides": [4], "blocks": ["skip"]}, 'genotype.blocks.0 is "skip": a block has two different inputs'),
        (faulty(two_back="skip"), 'genotype.blocks.1 reads "two_back": a block has two different inputs .* Set two of'),
        (faulty(two_back="skip", one_back="skip", block_1="skip"), "genotype.blocks.1 reads .* and .* and .*: a block"),
        (
            faulty(two_back="skip", block_2="skip"),
            'genotype.blocks.1 reads "block_2": block 2 may read .* block_1. Set',
        ),
        (faulty(two_bakc="skip", one_back="skip"), 'unknown input "two_bakc". Did you mean "two_back"?'),
        (faulty(two_back="none", one_back="skip"), "genotype.blocks.1.two_back is none, which passes nothing on"),
        (faulty(two_back="sepconv_3x3", one_back="skip"), 'Did you mean "sep_conv_3x3"?'),
        (faulty(two_back="dil_conv_3x3", one_back="skip"), 'Did you mean "atrous_conv_3x3"?'),
        (faulty(two_back=["skip"], one_back="skip"), r'genotype.blocks.1.two_back: unknown operation \["skip"\]'),
    ],
)
def test_faults_are_named_with_the_rule_and_a_repair(value, message):
    pattern = message if ".*" in message or "\\" in message else message.replace("[", r"\[").replace("?", r"\?")
    with pytest.raises(ConfigError, match=pattern) as raised:
        Genotype.from_json(value)
    assert "\n" not in str(raised.value)


def test_the_constructor_refuses_what_the_json_may_not_have():
    with pytest.raises(ConfigError, match='reads "one_back" and "one_back": a block has two different inputs'):
        Genotype((4,), ((("one_back", "skip"), ("one_back", "max_pool_3x3")),))
    with pytest.raises(ConfigError, match=r"strides\.1 is 32 after 8"):
        Genotype((8, 32), CELL)


# ---- Decoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "blocks"), [(1, 1), (2, 2), (5, 3), (12, 5), (25, 8)])
def test_decoding_an_encoded_genotype_is_the_identity(layers, blocks):
    generator = np.random.default_rng(layers)
    for _ in range(200):
        genotype = random_genotype(generator, layers, blocks)
        alpha, beta = encode(genotype)
        assert (alpha.shape, beta.shape) == ((len(cell_edges(blocks)), 8), (layers, 4, 3))
        assert decode(alpha, beta) == genotype
        assert decode(alpha.astype(np.float32).tolist(), beta.astype(np.float32).tolist()) == genotype


def test_the_encoded_path_and_operations_alone_have_weight():
    for seed in range(50):
        genotype = random_genotype(seed, layers=8, blocks=4)
        alpha, beta = encode(genotype)
        weights, moves = alpha_weights(alpha).astype(np.float32), beta_weights(beta).astype(np.float32)
        chosen = {(block, name): op for block, pair in enumerate(genotype.blocks) for name, op in pair}
        for edge, (block, place) in enumerate(cell_edges(4)):
            expected = number(chosen.get((block, input_names(4)[place]), "none"))
            assert weights[edge].tolist() == [float(each == expected) for each in range(8)]
        for layer, target in enumerate(genotype.levels):
            taken = [(level, level + move - 1) for level, move in np.argwhere(moves[layer] == 1).tolist()]
            assert len(taken) == min(layer + 1, 4)
            assert [source for source, into in taken if into == target] == [(0, *genotype.levels)[layer]]


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_the_path_is_the_most_probable_of_all(layers):
    generator = np.random.default_rng(layers)
    for _ in range(60 if layers < 5 else 15):
        # What is said about impossible moves must not matter, however much it is.
        beta = np.where(possible_moves(layers), generator.normal(size=(layers, 4, 3)) * 2, 50.0)
        best = max(all_paths(layers), key=lambda levels: path_probability(levels, beta))
        alpha = np.zeros((2, 8))
        assert decode(alpha, beta).levels == best


@pytest.mark.parametrize("layer", range(5))
def test_every_single_move_is_read_from_its_own_place(layer):
    # The public code read beta[1][2] instead of beta[1][1] for the move that stays at stride 8 in layer 1.
    for level, move in np.argwhere(possible_moves(5)[layer]).tolist():
        target = level + move - 1
        beta = np.zeros((5, 4, 3))
        beta[layer, level, move] = 30.0
        for earlier in range(layer):  # lead there: each step towards the level, then stay
            beta[earlier, min(earlier, level), 2 if earlier < level else 1] = 30.0
        levels = decode(np.zeros((2, 8)), beta).levels
        assert ((0, *levels)[layer], levels[layer]) == (level, target)


def test_moves_out_of_each_node_have_weights_of_sum_one():
    # The public code divides stride 32 by a softmax over one move, and multiplies the two moves at the borders by 2/3.
    beta = np.random.default_rng(0).normal(size=(7, 4, 3))
    weights = beta_weights(beta)
    reachable = np.array([[level <= layer for level in range(4)] for layer in range(7)])
    assert weights.sum(axis=2) == pytest.approx(reachable.astype(float))
    assert (weights[~possible_moves(7)] == 0).all()
    assert weights[5, 3, :2].tolist() == pytest.approx(softmax(beta[5, 3, :2].tolist()))
    assert weights[0, 0, 1:].tolist() == pytest.approx(softmax(beta[0, 0, 1:].tolist()))
    assert weights[4, 2].tolist() == pytest.approx(softmax(beta[4, 2].tolist()))


def test_possible_moves_are_those_of_reachable_nodes_within_the_strides():
    moves = possible_moves(5)
    assert moves[0].tolist() == [[False, True, True], *[[False] * 3] * 3]
    assert moves[1].tolist() == [[False, True, True], [True] * 3, *[[False] * 3] * 2]
    assert moves[3].tolist() == moves[4].tolist()
    assert moves[4].tolist() == [[False, True, True], [True] * 3, [True] * 3, [True, True, False]]
    assert moves.sum() == 2 + 5 + 8 + 10 + 10


def alpha_with(**logits):
    """alpha of two blocks with single logits, named as `edge_operation`."""
    alpha = np.zeros((5, 8))
    for name, logit in logits.items():
        edge, operation = name[1:].split("_", 1)
        alpha[int(edge), number(operation)] = logit
    return alpha


def test_an_operation_stays_on_its_edge():
    # Edge 4 of block 2 (from block 1) is stronger than its edge 2 (from two_back); the public code swaps them.
    genotype = decode(alpha_with(e2_skip=2, e4_max_pool_3x3=5), np.zeros((1, 4, 3)))
    assert genotype.blocks[1] == (("two_back", "skip"), ("block_1", "max_pool_3x3"))


def test_none_is_never_chosen_but_weakens_its_edge():
    alpha = alpha_with(e2_none=9, e2_skip=3, e3_skip=2, e4_none=1, e4_sep_conv_5x5=2)
    genotype = decode(alpha, np.zeros((1, 4, 3)))
    # By logits alone edge 2 would be the strongest; its weight went to "none".
    assert genotype.blocks[1] == (("one_back", "skip"), ("block_1", "sep_conv_5x5"))
    only_none = np.zeros((5, 8))
    only_none[:, 0] = 40.0
    only_none[3, 5] = only_none[4, 4] = 1e-3
    decoded = decode(only_none, np.zeros((1, 4, 3)))
    assert decoded.blocks[1] == (("one_back", "sep_conv_5x5"), ("block_1", "sep_conv_3x3"))


def test_the_two_strongest_edges_are_kept():
    alpha = alpha_with(e2_skip=1, e3_skip=3, e4_skip=2, e0_avg_pool_3x3=1, e1_atrous_conv_5x5=1)
    blocks = decode(alpha, np.zeros((1, 4, 3))).blocks
    assert blocks == (
        (("two_back", "avg_pool_3x3"), ("one_back", "atrous_conv_5x5")),
        (("one_back", "skip"), ("block_1", "skip")),
    )


def test_the_weight_of_an_edge_counts_in_its_block_alone():
    alpha = alpha_with(e2_skip=1, e3_skip=3, e4_skip=2)
    beta = np.zeros((1, 4, 3))
    assert decode(alpha, beta, np.zeros(5)) == decode(alpha, beta)
    assert decode(alpha, beta, [7, -7, 4, 4, 4]) == decode(alpha, beta)
    weighted = decode(alpha, beta, [0, 0, 2, 0, -2])
    assert weighted.blocks[1] == (("two_back", "skip"), ("one_back", "skip"))
    # By hand: skip has e^3 / (e^3 + 7) = .742 of edge 3, .513 of edge 4, and .280 of edge 2.
    at_the_limit = math.log(0.5133 / 0.2797)
    for difference, name in ((-1e-2, "block_1"), (1e-2, "two_back")):
        chosen = decode(alpha, beta, [0, 0, at_the_limit + difference, 0, 0]).blocks[1]
        assert name in dict(chosen)
    with pytest.raises(TrainingError, match="edges is not finite"):
        decode(alpha, beta, [0, 0, 0, 0, math.nan])
    with pytest.raises(ValueError, match=r"edges has shape \(2,\): it must be \(5,\)"):
        decode(alpha, beta, [0, 0])


def test_equals_are_decided_the_same_way_always():
    # Two paths of one half each, 4, 8 and 8, 8; and operations that are all equal, but for errors of rounding.
    beta = np.full((2, 4, 3), -np.inf)
    beta[0, 0, 1:] = beta[1, 0, 2] = beta[1, 1, 1] = 0
    generator = np.random.default_rng(0)
    for scale in [0, *[1e-12] * 20]:
        noise = [generator.normal(size=shape) * scale for shape in ((9, 8), (2, 4, 3))]
        genotype = decode(noise[0], beta + noise[1])
        assert genotype.strides == (4, 8)
        assert set(genotype.blocks) == {(("two_back", "max_pool_3x3"), ("one_back", "max_pool_3x3"))}


def test_what_is_excluded_is_not_chosen():
    beta = np.zeros((3, 4, 3))
    beta[0, 0, 1] = -np.inf
    alpha = np.zeros((2, 8))
    alpha[:, 1:4] = -np.inf
    genotype = decode(alpha, beta)
    assert genotype.strides[0] == 8
    assert genotype.blocks == ((("two_back", "sep_conv_3x3"), ("one_back", "sep_conv_3x3")),)
    beta[0, 0, 2] = -np.inf
    with pytest.raises(TrainingError, match="beta excludes every path"):
        decode(alpha, beta)
    alpha[0, 1:] = -np.inf
    with pytest.raises(TrainingError, match="alpha excludes the operations of block 1"):
        decode(alpha, np.zeros((3, 4, 3)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged_parameters_are_not_decoded(value):
    alpha, beta = encode(random_genotype(0))
    for array in (alpha, beta):
        broken = array.copy()
        broken.flat[1] = value
        with pytest.raises(TrainingError, match="is not finite: the architecture diverged"):
            decode(broken if array is alpha else alpha, broken if array is beta else beta)


def test_other_shapes_are_refused():
    alpha, beta = encode(random_genotype(0))
    for wrong in (alpha[:-1], alpha[:, :-1], alpha[0], alpha[:0]):
        with pytest.raises(ValueError, match="alpha has shape"):
            decode(wrong, beta)
    for wrong in (beta[:, :3], beta[0], beta[:0]):
        with pytest.raises(ValueError, match="beta has shape"):
            decode(alpha, wrong)


def test_entropy_is_a_share_of_the_largest():
    assert entropy_shares(np.zeros((20, 8)), np.full((12, 4, 3), 3.0)) == pytest.approx((1, 1))
    assert entropy_shares(*encode(random_genotype(0))) == pytest.approx((0, 0))
    # Half of the edges undecided between two of eight operations: (1/3 of log 8) on one edge of two.
    alpha, beta = np.full((2, 8), -np.inf), np.zeros((1, 4, 3))
    alpha[0, 1:3] = alpha[1, 1] = 0
    beta[0, 0] = [99, 0, math.log(3)]  # the first is not possible; 1/4 and 3/4
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert entropy_shares(alpha, beta) == pytest.approx((1 / 6, entropy))


# ---- Genotypes from elsewhere ---------------------------------------------------------------------------------------


def test_the_published_genotype_is_that_of_the_paper():
    genotype = published_genotype()
    assert genotype.levels == (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
    assert [dict(block) for block in genotype.blocks] == [
        {"two_back": "atrous_conv_5x5", "one_back": "sep_conv_3x3"},
        {"two_back": "sep_conv_3x3", "one_back": "atrous_conv_3x3"},
        {"two_back": "sep_conv_3x3", "block_2": "sep_conv_3x3"},
        {"block_1": "sep_conv_5x5", "block_3": "sep_conv_5x5"},
        {"block_2": "sep_conv_5x5", "block_4": "atrous_conv_5x5"},
    ]
    assert read_genotype(None) == genotype


LEVELS = [1, 0, 0, 1]
ROWS = [[0, 7], [1, 4], [4, 3], [2, 1]]  # in block 2 the stronger edge is the later one, as in the public default cell


def write_triple(folder, levels=LEVELS, rows=ROWS, space=None):
    np.save(folder / "network_path.npy", np.array(levels, dtype=np.uint8))
    np.save(folder / "genotype.npy", np.array(rows))
    if space is not None:
        np.save(folder / "network_path_space.npy", space)
    return str(folder)


def space_of(levels):
    space = np.zeros((len(levels), 4, 3))
    for layer, level in enumerate(levels):
        space[layer, level, 0 if layer == 0 else levels[layer - 1] - level + 1] = 1
    return space


@pytest.mark.parametrize("space", [None, space_of(LEVELS)])
def test_the_files_of_the_public_code_are_read(tmp_path, space):
    genotype = read_genotype(write_triple(tmp_path, space=space))
    assert genotype.strides == (8, 4, 4, 8)
    assert genotype.blocks == (
        (("two_back", "atrous_conv_5x5"), ("one_back", "sep_conv_3x3")),
        (("two_back", "max_pool_3x3"), ("block_1", "skip")),
    )
    assert genotype_of_arrays(LEVELS, np.array(ROWS, dtype=np.uint8)) == genotype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [[0, 7], [1, 0]]}, r"blocks.0.one_back is none, which passes nothing on"),
        ({"rows": [[0, 7], [2, 1]]}, r"row \[2, 1\] does not fit: row 1 belongs to block 1 with the edges 0 to 1"),
        ({"rows": [[0, 7], [1, 8]]}, r"row \[1, 8\] does not fit: .*operations are 0 to 7"),
        ({"rows": [[0, 7], [0, 1]]}, r"blocks.0 reads \"two_back\": a block has two different inputs"),
        ({"rows": [[0, 7]]}, r"the cell has shape \(1, 2\)"),
        ({"rows": [[0.5, 7], [1, 1]]}, "the cell is not an array of whole numbers with 2 dimensions"),
        ({"levels": [0, 4]}, r"the path \[0, 4\] is not a list of levels from 0 to 3"),
        ({"levels": [0, 2]}, r"strides.1 is 16 after 4"),
        ({"levels": [[0, 2]]}, "the path is not an array of whole numbers with 1 dimension"),
        ({"space": space_of([0, 0, 0, 1])}, "network_path.npy and network_path_space.npy hold different paths"),
    ],
)
def test_faults_in_the_files_of_the_public_code_are_named(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message) as raised:
        read_genotype(write_triple(tmp_path, **change))
    assert str(tmp_path) in str(raised.value)


def test_a_folder_without_the_files_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no network_path\.npy: a folder with a genotype"):
        read_genotype(str(tmp_path))
    write_triple(tmp_path)
    (tmp_path / "genotype.npy").write_bytes(b"PK nothing")
    with pytest.raises(ConfigError, match=r"genotype.npy: cannot be read as an array"):
        read_genotype(tmp_path)
    np.save(tmp_path / "genotype.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"genotype.npy: cannot be read as an array"):
        read_genotype(tmp_path)


def test_a_genotype_is_read_from_whatever_names_it(tmp_path):
    genotype = random_genotype(5, layers=4, blocks=3)
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(genotype.to_json()))
    for value in (genotype, genotype.to_json(), str(file), file):
        assert read_genotype(value) == genotype
    file.write_text(file.read_text(), encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    assert read_genotype(file) == genotype
    assert read_genotype("random:5", layers=4, blocks=3) == read_genotype("random:5:4:3") == genotype


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "genotype.json: cannot be read as JSON"),
        ("[" * 100_000, "genotype.json: cannot be read .*nested too deep"),
        ("[4, 8]", r"genotype.json is \[4, 8\], not a genotype"),
        (json.dumps(faulty([4, 16])), r"genotype.json.strides.1 is 16 after 4"),
        ('{"strides": [4], "blocks": [{"one_back": "skip", "one_back": "skip"}]}', '"one_back" stands twice'),
    ],
)
def test_faults_of_a_file_have_its_name(tmp_path, content, message):
    file = tmp_path / "genotype.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message) as raised:
        read_genotype(str(file))
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("random:", r'by its seed, .* Set it as "random:17"'),
        ("random:x", "by its seed"),
        ("random:-1", "by its seed"),
        ("random:1.5", "by its seed"),
        ("random:17:8", r'by both\. .* "random:17:8:4" for 8 layers and 4 blocks'),
        ("random:17:0:4", "1 to 100 layers and 1 to 100 blocks"),
        ("random:17:4:101", "1 to 100 layers"),
        ("nowhere.json", "there is no file"),
        ("", 'named by a JSON file, .* or "random:17"'),
        (json.dumps({"strides": [4] * 200, "blocks": []}), "an object. Write it without quotes around it"),
        (17, "not a genotype"),
        (["skip"], "not a genotype"),
    ],
)
def test_other_values_are_refused(value, reason):
    with pytest.raises(ConfigError, match=rf"^arch.args.genotype.*{reason}") as raised:
        read_genotype(value, where="arch.args.genotype")
    assert len(str(raised.value)) < 300


def test_a_name_too_long_for_a_file_is_refused():
    with pytest.raises(ConfigError, match="name too long"):
        read_genotype("x" * 5000)


def test_strides_and_levels_fit_the_paper():
    assert [4 * 2**level for level in range(4)] == list(STRIDES)
    assert OPERATIONS[0] == "none"
    assert len(OPERATIONS) == 8
