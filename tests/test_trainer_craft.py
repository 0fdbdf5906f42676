"""Accumulation, clipping, averages, freezing, groups, recomputed activations, time limits; and that resume holds."""

import copy

import pytest
import torch
from test_trainer import STEPS_PER_EPOCH, StopAt, assert_same_run, run
from torch import nn

from models.losses import CrossEntropyLoss, DiceLoss, WeightedLoss
from tests.support.tiny import TinyNet, tiny_trainer
from trainer.checkpoints.resume import Start, restore, weights_of
from trainer.checkpoints.saving import Checkpoints, TimeLimit
from trainer.optim.weights import Freezing, GroupRule, WeightAverage, parameter_groups
from trainer.runtime.activations import Recomputed, recompute_activations
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError, Interrupted, TrainingError


class Plain(nn.Module):
    """A network whose result does not depend on how samples are spread over batches."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, inputs):
        return self.layer(inputs)


def plain_trainer(accumulate, batch_size, **plan):
    trainer = tiny_trainer(epochs=2, accumulate=accumulate, **plan)
    torch.manual_seed(1)
    trainer.model = Plain()
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.train_loader.keys.batch_size = batch_size
    return trainer


def test_accumulated_batches_make_the_step_of_one_large_batch_also_at_the_uneven_end():
    # 22 samples: steps of 12 and 10; in batches of 4: 4+4+4 and 4+4+2.
    large, small = plain_trainer(1, 12), plain_trainer(3, 4)
    assert large.steps_per_epoch == small.steps_per_epoch == 2
    one, other = large.fit(), small.fit()
    assert torch.allclose(large.model.layer.weight, small.model.layer.weight, atol=1e-6)
    assert [row["loss"] for row in one.history] == pytest.approx([row["loss"] for row in other.history], rel=1e-5)


CRAFT = {
    "accumulate": {"accumulate": 4},
    "weights": {"accumulate": 2, "loss": WeightedLoss([CrossEntropyLoss(weight=[1.0, 3.0]), DiceLoss()], [1.0, 0.5])},
    "ema": {"ema_decay": 0.9},
    "clip": {"clip_norm": 0.1},
    "freeze": {"freezing": Freezing(("layers.0", "layers.1"), until_epoch=2)},
    "all": {
        "accumulate": 2, "ema_decay": 0.8, "clip_norm": 0.5, "clip_value": 0.1, "freezing": Freezing(("layers.0",), 3)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFT)
def test_resumed_at_any_step_ends_in_the_same_bytes(name, tmp_path):
    run(tmp_path / "straight", **CRAFT[name])
    steps = -(-STEPS_PER_EPOCH // CRAFT[name].get("accumulate", 1))
    # The first, the last, and those around the ends of epochs; of short epochs that is each.
    for step in sorted({1, 3 * steps - 1, *(end + near for end in (steps, 2 * steps) for near in (-1, 0, 1))}):
        folder = tmp_path / str(step)
        with pytest.raises(Interrupted):
            run(folder, StopAt(step), **CRAFT[name])
        run(folder, state=read_checkpoint(folder / "checkpoint-last.pth"), n_workers=step % 2, **CRAFT[name])
        assert_same_run(folder, tmp_path / "straight")


def test_the_average_follows_by_hand_computed_shares():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(model)  # decay min(0.5, 2/11): 0 * 2/11 + 1 * 9/11
    assert float(average.model.weight) == pytest.approx(9 / 11)
    average.update(model)  # decay min(0.5, 3/12)
    assert float(average.model.weight) == pytest.approx(9 / 11 * 0.25 + 0.75)


def test_the_average_copies_counters_and_averages_statistics():
    model = TinyNet().train()
    average = WeightAverage(model, 0.9)
    model(torch.randn(8, 3) + 3)
    average.update(model)
    assert int(average.model.layers[1].num_batches_tracked) == 1
    mean = model.layers[1].running_mean
    assert torch.allclose(average.model.layers[1].running_mean, mean * (1 - 2 / 11))


def test_validation_and_the_checkpoint_take_the_average(tmp_path):
    trainer = tiny_trainer([Checkpoints(tmp_path, {})], epochs=1, ema_decay=0.9)
    seen = []
    trainer.average.model.register_forward_hook(lambda *_: seen.append(1))
    trainer.fit()
    assert len(seen) == len(trainer.valid_loader)
    content = read_checkpoint(tmp_path / "model_best.pth")
    weights = weights_of(content)
    assert all(torch.equal(weights[name], tensor) for name, tensor in trainer.average.model.state_dict().items())
    assert not torch.equal(weights["layers.0.weight"], content["state_dict"]["layers.0.weight"])


def test_gradients_are_clipped_to_the_norm_and_the_value():
    def gradients(**plan):
        trainer = plain_trainer(1, 22, **plan)
        trainer.run_step([batch[:2] for batch in trainer.train_loader])
        return torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])

    free = gradients()
    assert float(free.norm()) > 0.1
    assert torch.allclose(gradients(clip_norm=0.1), 0.1 * free / free.norm(), rtol=1e-4)
    assert torch.allclose(gradients(clip_value=0.02), free.clamp(-0.02, 0.02))
    both = free.clamp(-0.02, 0.02)  # the value first
    assert torch.allclose(gradients(clip_norm=0.01, clip_value=0.02), 0.01 * both / both.norm(), rtol=1e-3)


def test_frozen_parts_keep_weights_and_statistics_until_they_learn():
    trainer = tiny_trainer(epochs=2, freezing=Freezing(("layers.0", "layers.1"), until_epoch=2))
    before = copy.deepcopy(trainer.model.state_dict())
    frozen = [name for name in before if name.startswith(("layers.0.", "layers.1."))]
    trainer.run_epoch()
    after = copy.deepcopy(trainer.model.state_dict())
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert len(frozen) == 7
    assert not torch.equal(before["layers.4.weight"], after["layers.4.weight"])
    trainer.run_epoch()
    assert not any(torch.equal(after[name], tensor) for name, tensor in trainer.model.state_dict().items())


@pytest.mark.parametrize(
    ("patterns", "stays"),
    [(("layers.1.*",), True), (("layers.[01].weight", "layers.1.bias"), True), (("*.bias",), False)],
)
def test_a_norm_layer_whose_weights_are_all_frozen_keeps_its_statistics(patterns, stays):
    trainer = tiny_trainer(epochs=1, freezing=Freezing(patterns))
    before = trainer.model.layers[1].running_mean.clone()
    trainer.run_epoch()
    assert torch.equal(before, trainer.model.layers[1].running_mean) == stays


def test_freezing_refuses_what_names_nothing_or_everything():
    with pytest.raises(ConfigError, match=r'"encoder" matches no part .* Its parts are layers'):
        tiny_trainer(freezing=Freezing(("encoder",)))
    with pytest.raises(ConfigError, match="freezes every weight, so that nothing would learn"):
        tiny_trainer(freezing=Freezing(("layers",)))


def sizes(groups):
    return [(len(group["params"]), group.get("lr"), group.get("weight_decay")) for group in groups]


def test_groups_by_norm_and_bias_by_rule_and_by_depth():
    model = TinyNet()  # layers.0 weight, bias; layers.1 weight, bias (norm); layers.4 weight, bias
    assert sizes(parameter_groups(model, 0.1)) == [(6, None, None)]
    assert sizes(parameter_groups(model, 0.1, decay_norm_and_bias=False)) == [(2, None, None), (4, None, 0.0)]
    rules = [GroupRule("layers.4", lr_scale=10, weight_decay=0.5), GroupRule("*.bias", lr_scale=2)]
    assert sizes(parameter_groups(model, 0.1, rules=rules)) == [(2, None, None), (2, 0.2, None), (2, 1.0, 0.5)]
    assert sizes(parameter_groups(model, 1.0, layer_decay=0.5)) == [(2, 0.25, None), (2, 0.5, None), (2, None, None)]


def test_groups_refuse_a_rule_for_nothing_and_a_missing_rate():
    with pytest.raises(ConfigError, match=r'optimizer.groups.1.match: "head" matches no part'):
        parameter_groups(TinyNet(), 0.1, rules=[GroupRule("layers"), GroupRule("head")])
    with pytest.raises(ConfigError, match=r'"layers.0.weight" shall learn 2 times as fast, but .* has no lr'):
        parameter_groups(TinyNet(), None, rules=[GroupRule("layers.0", lr_scale=2)])


def test_recomputed_activations_change_nothing():
    results = []
    for patterns in ([], ["layers"]):
        torch.manual_seed(0)
        model = TinyNet().train()
        if patterns:
            recompute_activations(model, patterns)
        torch.manual_seed(1)
        model(torch.randn(8, 3)).sum().backward()
        results.append((model.state_dict(), [weight.grad for weight in model.parameters()]))
    (one, gradients), (other, others) = results
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


def test_recomputed_parts_have_the_same_names_and_a_shared_part_is_one():
    def network():
        shared = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        return nn.ModuleDict({"first": shared, "other": nn.Linear(3, 3), "again": shared})

    plain, recomputed = network(), network()
    weights = dict(recomputed.named_parameters())
    recompute_activations(recomputed, ["first", "again", "*.0"])
    assert [name for name, _ in recomputed.named_modules()] == [name for name, _ in plain.named_modules()]
    assert all(weight is weights[name] for name, weight in recomputed.named_parameters())
    assert recomputed["first"] is recomputed["again"]
    assert isinstance(recomputed["first"], nn.Sequential)
    assert isinstance(copy.deepcopy(recomputed)["first"], Recomputed)
    assert [type(part) for part in recomputed["first"]] == [nn.Linear, nn.BatchNorm1d]


def test_recomputed_activations_are_not_kept():
    kept = []
    for patterns in ([], ["layers"]):
        model = TinyNet().train()
        if patterns:
            recompute_activations(model, patterns)
        sizes_kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes_kept: s.append(t.numel()) or t, lambda t: t):
            model(torch.randn(64, 3))
        kept.append(sum(sizes_kept))
    assert kept[1] < kept[0] / 4
    with pytest.raises(ConfigError, match=r'"stem" matches no part of the network. Its parts are layers'):
        recompute_activations(TinyNet(), ["stem"])


def test_the_batches_of_a_loss_that_is_not_finite_are_kept(tmp_path):
    trainer = tiny_trainer(epochs=1, accumulate=2)
    trainer.run_folder = tmp_path
    seen = []
    trainer.criterion = lambda output, target: output.sum() * (float("nan") if len(seen) == 2 else 1.0)
    trainer.model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
    seen.clear()
    before = copy.deepcopy(trainer.model.state_dict())
    seen.extend([None])  # the second batch of the first step fails
    with pytest.raises(TrainingError, match=r"not finite at epoch 1, step 1: .* The batch is in .*not-finite-step1.pt"):
        trainer.fit()
    kept = torch.load(tmp_path / "not-finite-step1.pt")["batches"]
    assert len(kept) == 2
    assert torch.equal(kept[1][0], seen[2])
    assert torch.equal(before["layers.0.weight"], trainer.model.state_dict()["layers.0.weight"])


def test_a_run_whose_time_is_over_ends_well_and_goes_on_to_the_same_bytes(tmp_path):
    run(tmp_path / "straight")
    result = run(tmp_path / "short", TimeLimit(0.0))
    assert (result.epochs, result.history) == (0, [])
    state = read_checkpoint(tmp_path / "short" / "checkpoint-last.pth")
    assert state["global_step"] == 1
    run(tmp_path / "short", state=state)
    assert_same_run(tmp_path / "short", tmp_path / "straight")


def test_a_compiled_network_has_the_names_of_its_layers():
    trainer = tiny_trainer(epochs=1)
    names = list(trainer.model.state_dict())
    trainer.model.compile(backend="eager")
    trainer.fit()
    assert list(trainer.model.state_dict()) == names
    restore(tiny_trainer(epochs=1), Start({}, state={**trainer.state_dict(), "state_dict": trainer.model.state_dict()}))
