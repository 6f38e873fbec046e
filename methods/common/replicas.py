"""The networks of several seeds as one program: the same operators for all, on tensors with an axis of replicas."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from methods.contract.decoder import GenerativeModel

M = TypeVar("M", bound=nn.Module)


class Networks(nn.Module):
    """The networks that a method trains for one seed, or for several.

    Args:
        model: The generative model.
        encoder: The networks of q(z | x), or what else is trained together with the model.
    """

    def __init__(self, model: GenerativeModel, encoder: nn.Module):
        super().__init__()
        self.model, self.encoder = model, encoder


class Replicas:
    """R groups of networks, one for each seed, whose trained parameters are rows of one matrix.

    A program holds the networks of all seeds. A module can be part of it if it states `replica_axes`: for each of its
    own parameters and buffers, the number of axes of length 1 between the axis of replicas and its own axes, so that it
    broadcasts against inputs (..., R, n, features). With one replica the program has the shapes of that replica alone,
    and any module can be part of it.

    Args:
        members: The networks of each seed, of equal shapes. Their parameters become rows of `weights`.

    Attributes:
        weights: Where gradients are taken, (R, P).
        gradient: The last gradient there, (R, P).
        evaluated: What is evaluated, (R, P).
        training: All networks at `weights`.
        mean: All networks at `evaluated`.
        parameters: The trained parameters of `training`, in the order of the columns; those of the models come first.

    Raises:
        TypeError: For several replicas of a module that states no `replica_axes`.
    """

    def __init__(self, members: Sequence[Networks]):
        self.members = members
        self.evaluated = torch.stack([row(each) for each in members])
        self.weights = self.evaluated.clone()
        self.gradient = torch.zeros_like(self.weights)
        self.mean = self._program(self.evaluated)
        self.training = self._program(self.weights)
        self.parameters = trained(self.training)
        views = trained(self._program(self.gradient))
        self._gradients = {p: view.detach() for p, view in zip(self.parameters, views, strict=True)}
        for member, values in zip(members, self.weights, strict=True):
            bind(member, values)

    def differentiate(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Put the gradient of a sum over replicas into `gradient`.

        Args:
            loss: The sum.
            parameters: Some of `parameters`; the columns of the others stay as they are.
        """
        torch._foreach_copy_([self._gradients[p] for p in parameters], torch.autograd.grad(loss, parameters))

    def _program(self, values: Tensor) -> Networks:
        """The networks of all replicas, whose trained parameters are views of values (R, P)."""
        program = copy.deepcopy(self.members[0])
        if len(self.members) == 1:
            return bind(program, values[0])
        start = 0
        same = zip(*(each.modules() for each in (program, *self.members)), strict=True)
        for module, *others in same:
            vars(module).pop("forward", None)  # a ledger that watches the first replica does not watch all of them
            for kind in ("_parameters", "_buffers"):
                for name, value in getattr(module, kind).items():
                    if value is None:
                        continue
                    shape = (len(self.members), *[1] * _axes(module)[name], *value.shape)
                    if value.requires_grad:
                        stacked = values[:, start : start + value.numel()]
                        start += value.numel()
                    else:
                        stacked = torch.stack([getattr(each, kind)[name].detach() for each in others])
                    stacked = stacked.view(shape)
                    if isinstance(value, nn.Parameter):
                        stacked = nn.Parameter(stacked, value.requires_grad)
                    getattr(module, kind)[name] = stacked
        return program


def _axes(module: nn.Module) -> Mapping[str, int]:
    axes: Mapping[str, int] | None = getattr(type(module), "replica_axes", None)
    if axes is None:
        raise TypeError(f"{type(module).__name__} cannot be part of a program of several replicas")
    return axes


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [p for p in module.parameters() if p.requires_grad]


def row(member: Networks) -> Tensor:
    """A copy of the trained parameters of a module, (P,)."""
    return torch.cat([p.detach().flatten() for p in trained(member)])


def bind(member: M, values: Tensor) -> M:
    """Make the trained parameters of a module views of values, (P,) or more; returns the module."""
    start = 0
    for p in trained(member):
        p.data = values[start : start + p.numel()].view(p.shape)
        start += p.numel()
    return member
