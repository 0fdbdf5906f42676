"""SGD with decoupled decay, and lookahead: values by hand, and the same bytes after a resume."""

import copy
import inspect
import pickle

import pytest
import torch

import build
from trainer.optim.optimizers import SGDW, Lookahead
from trainer.optim.uncompiled import without_compiler


def weight_of(values=(1.0, -2.0)):
    return torch.nn.Parameter(torch.tensor(values))


def step(optimizer, weight, gradient):
    weight.grad = torch.tensor(gradient)
    optimizer.step()


def test_decay_is_in_no_momentum():
    weight = weight_of()
    optimizer = SGDW([weight], lr=0.1, momentum=0.5, weight_decay=1.0)
    step(optimizer, weight, [1.0, 0.0])  # 1 * 0.9 - 0.1 * 1
    assert weight.tolist() == pytest.approx([0.8, -1.8])
    step(optimizer, weight, [1.0, 0.0])  # 0.8 * 0.9 - 0.1 * (0.5 * 1 + 1)
    assert weight.tolist() == pytest.approx([0.57, -1.62])


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_decay_it_is_sgd(nesterov):
    first, second = weight_of(), weight_of()
    ours = SGDW([first], lr=0.1, momentum=0.9, nesterov=nesterov)
    theirs = torch.optim.SGD([second], lr=0.1, momentum=0.9, nesterov=nesterov)
    for value in (1.0, -0.5, 2.0):
        step(ours, first, [value, 1.0])
        step(theirs, second, [value, 1.0])
    assert torch.equal(first, second)


def test_a_weight_without_a_gradient_does_not_decay():
    weight = weight_of()
    SGDW([weight], lr=0.1, weight_decay=1.0).step()
    assert weight.tolist() == [1.0, -2.0]


def test_slow_weights_move_a_part_of_the_way():
    weight = weight_of((0.0,))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    Lookahead(sync_period=2, slow_step_size=0.25).follow(optimizer)
    values = []
    for _ in range(4):
        step(optimizer, weight, [-1.0])
        values.append(weight.item())
    assert values == [1.0, 0.5, 1.5, 1.0]  # 0 + (2 - 0) / 4; 0.5 + (2.5 - 0.5) / 4


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RAdam, torch.optim.SGD, SGDW])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_resumed_after_any_step_it_ends_in_the_same_bytes(kind, steps):
    def begun():
        weight = weight_of()
        optimizer = kind([weight], lr=0.1)
        Lookahead(sync_period=3).follow(optimizer)
        return weight, optimizer

    gradients = [[0.3 * number, 1.0 - number] for number in range(7)]
    whole, optimizer = begun()
    for number, gradient in enumerate(gradients):
        if number == steps:
            saved = copy.deepcopy(optimizer.state_dict()), whole.detach().clone()
        step(optimizer, whole, gradient)
    resumed, optimizer = begun()
    with torch.no_grad():
        resumed.copy_(saved[1])
    optimizer.load_state_dict(saved[0])
    for gradient in gradients[steps:]:
        step(optimizer, resumed, gradient)
    assert torch.equal(whole, resumed)


def test_a_config_asks_for_both():
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    spec = {"type": "SGDW", "args": {"lr": 0.5, "weight_decay": 1.0}, "lookahead": {"sync_period": 1}}
    optimizer = build.build_optimizer({"optimizer": spec}, model)
    step(optimizer, model.weight, [[0.0]])
    assert model.weight.item() == 0.75  # decayed to 0.5, and half of the way back


def torch_optimizers():
    """The optimizers of torch that take plain weights, gradients and no closure."""
    left_out = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}  # Muon takes matrices only
    found = {name: each for name, each in vars(torch.optim).items() if inspect.isclass(each)}
    return [each for name, each in found.items() if issubclass(each, torch.optim.Optimizer) and name not in left_out]


@pytest.mark.parametrize("kind", torch_optimizers(), ids=lambda kind: kind.__name__)
def test_without_the_compiler_an_optimizer_computes_the_same(kind):
    light = without_compiler(kind)
    assert (light.__name__, light.__module__) == (kind.__name__, kind.__module__)
    assert str(inspect.signature(light)) == str(inspect.signature(kind))
    weights = [weight_of(), weight_of()]
    optimizers = [each([weight], lr=0.1) for each, weight in zip((kind, light), weights, strict=True)]
    calls = []
    optimizers[1].register_step_post_hook(lambda *_: calls.append(1))
    for gradient in ([1.0, 0.5], [-2.0, 0.25], [0.5, 0.5]):
        for optimizer, weight in zip(optimizers, weights, strict=True):
            optimizer.zero_grad()
            step(optimizer, weight, gradient)
    assert weights[0].tolist() == weights[1].tolist()
    assert len(calls) == 3
    one, other = (optimizer.state_dict() for optimizer in optimizers)
    assert str(one) == str(other)
    optimizers[1].load_state_dict(one)


def test_an_optimizer_without_the_compiler_can_be_pickled():
    weight = weight_of()
    optimizer = without_compiler(torch.optim.SGD)([weight], lr=0.1, momentum=0.5)
    step(optimizer, weight, [1.0, 1.0])
    again = pickle.loads(pickle.dumps(optimizer))
    assert type(again) is type(optimizer)
    assert str(again.state_dict()) == str(optimizer.state_dict())
    step(again, again.param_groups[0]["params"][0], [0.0, 0.0])
    assert again.param_groups[0]["params"][0].tolist() == pytest.approx([0.85, -2.15])


def test_an_optimizer_that_is_differentiated_stays_so_without_the_compiler():
    weight = weight_of()
    copied = weight.clone()
    copied.grad = torch.tensor([1.0, 1.0])
    optimizer = without_compiler(torch.optim.SGD)([weight_of()], lr=0.1, differentiable=True)
    optimizer.param_groups[0]["params"] = [copied]
    optimizer.step()
    copied.sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0]
