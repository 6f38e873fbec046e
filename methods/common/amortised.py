"""Training of amortised posteriors: one trainer, for one seed or for several as one program."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from methods.common.held_out import MOST_DIMENSIONS, POINTS, HeldOut
from methods.common.optimisers import Anytime, Cosine, Optimiser
from methods.common.posteriors import Amortised, build_encoder
from methods.common.replicas import Networks, Replicas, bind, row, trained
from methods.common.training import Objective
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Fitted, Method, Posterior, Task, require

SCHEDULES: dict[str, type[Optimiser]] = {"anytime": Anytime, "cosine": Cosine}
VALIDATE_EVERY = 300
JOINT = "joint"
WORSE = 2.0  # standard errors of bounds, which a few points decide
TRIAL = 0.1  # of all steps
Phases = Generator[str, Tensor, None]
T = TypeVar("T")


@dataclass(frozen=True)
class AmortisedMethod(Method):
    """Training of a decoder and an encoder by gradient steps on a bound. A method states its `objective`, or more.

    `phased` says that steps may train the encoder alone or the decoder alone, `encoder_optimiser` which optimiser the
    encoder has if not that of the decoder, and `per_datum` that what is trained beside the decoder belongs to training
    points, so that validation points have no bound.

    What is stated is for one seed: models, posteriors and data may have an axis of replicas before the axis of data.

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime' evaluates an average of the iterates, so that the fit may be stopped at any step;
            'cosine' lets the learning rate fall to zero over all steps.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts from random initial weights. Each has a trial of a tenth of the steps, and the one
            that is best on validation points takes all other steps. The trials of the others come on top of `steps`;
            all work is counted.
    """

    stacks: ClassVar[bool] = True
    phased: ClassVar[bool] = False
    per_datum: ClassVar[bool] = False
    encoder_optimiser: ClassVar[type[Optimiser] | None] = None

    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2
    schedule: str = "anytime"
    steepness: float = 1.0
    restarts: int = 1

    def __post_init__(self) -> None:
        require(self, positive=("steps", "batch_size", "learning_rate", "steepness", "restarts"))
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be {' or '.join(SCHEDULES)}, got {self.schedule!r}")

    @abstractmethod
    def objective(self, model: GenerativeModel, posterior: Any, x: Tensor, noise: Tensor, step: int) -> Objective:
        """What a step raises.

        Args:
            model: The generative model.
            posterior: q(z | x).
            x: A batch, (..., n, D).
            noise: Standard normal draws, (draws, ..., n, L).
            step: The number of steps taken.

        Returns:
            The objective of each x, (..., n).
        """

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """None: it accepts any likelihood."""
        return None

    @property
    def max_gradient_norm(self) -> float:
        """The norm to which longer gradients of a replica are scaled down, part by part; by default none is."""
        return math.inf

    @property
    def draws(self) -> int:
        """Draws of noise for each x and step."""
        return 1

    def encoder(self, model: GenerativeModel, task: Task) -> nn.Module:
        """The networks of q(z | x) at random initial weights, or what else is trained together with the decoder.

        Args:
            model: The generative model, which gives the sizes.
            task: The fitting problem, with its generator.
        """
        return build_encoder(model, task.generator)

    def posterior(self, model: GenerativeModel, encoder: Any) -> Posterior:  # noqa: ARG002
        """q(z | x) by trained networks."""
        found: Posterior = encoder
        return found

    def posterior_of_batch(self, model: GenerativeModel, encoder: Any, index: Tensor) -> Any:  # noqa: ARG002
        """What the objective of a batch takes as its posterior.

        Args:
            model: The generative model.
            encoder: What is trained together with it.
            index: Which training points the batch has, (..., n, 1).
        """
        return self.posterior(model, encoder)

    def phases(self, fitted: Fitted, task: Task) -> Phases | None:  # noqa: ARG002
        """What each step trains: 'joint', 'encoder' or 'decoder'. None: always jointly.

        Args:
            fitted: What is learned, live.
            task: The fitting problem.

        Yields:
            The phase of the next step; what is sent back is the mean bound of the batch before that step.
        """
        return None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield after every step."""
        for (fitted,) in self.fit_together([task]):
            yield fitted

    def fit_together(self, tasks: Sequence[Task]) -> Iterator[Sequence[Fitted]]:
        """Fit several seeds as one program. Each has the values that it has alone, up to rounding.

        Args:
            tasks: The fitting problems, of one shape.

        Yields:
            What has been learned of each, after every step.
        """
        yield from Trainer(self, tasks).run()


class Trainer:
    """The state of one training run of one or more replicas.

    With restarts, each start of a replica has a trial. While those of the later starts run, the best state so far is
    shown. The start with the best state on validation points is then trained to the end.

    States are compared by the mean log-likelihood of these points, as `mapa` does; above two latent dimensions by their
    mean bound.

    Args:
        method: The method.
        tasks: One fitting problem for each replica.
    """

    def __init__(self, method: AmortisedMethod, tasks: Sequence[Task]):
        self.method, self.tasks = method, list(tasks)
        self.trial = max(1, round(TRIAL * method.steps)) if method.restarts > 1 else 0
        self.untrained = [copy.deepcopy(task.model) for task in self.tasks] if self.trial else []
        every = [self._networks(task) for task in self.tasks]
        self.live = [copy.deepcopy(each) for each in every]
        self.replicas = Replicas(self.live)
        self.shown = [bind(each, values) for each, values in zip(every, self.replicas.evaluated, strict=True)]
        self.fitted = [self._fitted(each) for each in self.shown]
        batches = Batches(self.tasks, method.batch_size, method.draws)
        self.batches = iter(batches)
        self.validation: Batch | None = None
        if self.tasks[0].latent_dim > MOST_DIMENSIONS:
            self.validation = batches.validation(method.per_datum)
        else:
            self.evaluated = [
                bind(copy.deepcopy(each.model), values)
                for each, values in zip(every, self.replicas.evaluated, strict=True)
            ]
            self.held_out = [
                task.ledger.run("validation points", HeldOut, task.validation, task.latent_dim) for task in self.tasks
            ]
        self._begin()

    def _begin(self) -> None:
        """Begin at the present weights, with nothing remembered."""
        self.stepper = Stepper(self.method, self.replicas)
        self.best = self.replicas.evaluated.clone()
        scores = (len(self.tasks), self.validation.x.shape[-2] if self.validation else 1)
        self.best_scores = self.best.new_full(scores, -math.inf, dtype=torch.float64)
        self.worse = [False] * len(self.tasks)
        live = [self._fitted(each) for each in self.live]
        self.phases = [self.method.phases(*each) for each in zip(live, self.tasks, strict=True)]
        self.kinds = [JOINT if phase is None else next(phase) for phase in self.phases]

    @property
    def _rows(self) -> list[Any]:
        """All that training changes: tensors and lists with a row for each replica."""
        held = [each for *_, optimiser in self.stepper.parts for each in optimiser.rows]
        return [self.best, self.best_scores, self.worse, self.phases, self.kinds, *held]

    def _networks(self, task: Task) -> Networks:
        if self.method.steepness != 1:
            task.ledger.run("steeper first layer", task.model.steepen, self.method.steepness)
        encoder = task.ledger.run("initial weights", self.method.encoder, task.model, task)
        if isinstance(encoder, Amortised):
            task.ledger.watch(encoder=encoder.network)
        return Networks(task.model, encoder)

    def _redrawn(self, task: Task, model: GenerativeModel) -> Tensor:
        """Other initial weights of a replica, (P,). The model is changed in place."""
        model.redraw(task.generator)
        if self.method.steepness != 1:
            model.steepen(self.method.steepness)
        return row(Networks(model, self.method.encoder(model, task)))

    def _fitted(self, networks: Networks) -> Fitted:
        return Fitted(networks.model, self.method.posterior(networks.model, networks.encoder))

    def run(self) -> Iterator[Sequence[Fitted]]:
        """Take all steps."""
        if self.trial:
            yield from self._train(range(self.trial))
            yield from self._restart()
        yield from self._train(range(self.trial, self.method.steps))

    def _train(self, steps: range, shows: bool = True) -> Iterator[Sequence[Fitted]]:
        """Take some steps, and look at validation points in between and at the end of a trial."""
        for step in steps:
            bounds = self._step(step, next(self.batches))
            if (step + 1) % VALIDATE_EVERY == 0 or step + 1 == self.trial:
                self._look()
                if shows:
                    self._show()
            yield self.fitted
            if step + 1 < self.method.steps and bounds:
                sent = zip(self.phases, bounds, strict=True)
                self.kinds = [JOINT if phase is None else phase.send(each) for phase, each in sent]

    def _restart(self) -> Iterator[Sequence[Fitted]]:
        """The trials of all starts but the first, after which the state of each replica is that of its best start."""
        kept: list[Any] = [each.clone() if isinstance(each, Tensor) else [*each] for each in self._rows]
        best, best_scores, *_ = kept
        for shown, values in zip(self.shown, best, strict=True):
            bind(shown, values)

        def ahead(of: slice = slice(None)) -> Tensor:
            return self.best_scores[of].mean(1) > best_scores[of].mean(1)

        for _ in range(self.method.restarts - 1):
            for i, (task, model) in enumerate(zip(self.tasks, self.untrained, strict=True)):
                values = task.ledger.run("initial weights of a restart", self._redrawn, task, model)
                self.replicas.weights[i] = self.replicas.evaluated[i] = values
            self._begin()
            yield from self._train(range(self.trial), shows=False)
            chosen = together(
                self.tasks, ["choice of a start"] * len(self.tasks), ahead, lambda r: ahead(slice(r, r + 1))
            )
            for i in chosen.nonzero().flatten().tolist():
                for mine, found in zip(kept, self._rows, strict=True):
                    mine[i] = found[i]
        for mine, found in zip(self._rows, kept, strict=True):
            mine[:] = found
        self._show()

    def _step(self, step: int, batch: Batch) -> Sequence[Tensor]:
        kinds = self.kinds
        return together(
            self.tasks,
            [f"{kind} step" for kind in kinds],
            lambda: self.stepper.step(step, kinds, batch),
            lambda r: self._alone(r).step(step, kinds[r : r + 1], batch.of(r)),
        )

    def _alone(self, replica: int) -> Stepper:
        """A copy of one replica, to count what a step costs it alone."""
        return Stepper(self.method, Replicas([copy.deepcopy(self.live[replica])]))

    def _look(self) -> None:
        """Find whether the present state is worse on validation points than an earlier one.

        The best state so far is remembered.
        """
        if batch := self.validation:
            scores, best, worse = together(
                self.tasks,
                ["validation"] * len(self.tasks),
                lambda: self.stepper.look(batch, self.best_scores),
                lambda r: self._alone(r).look(batch.of(r), self.best_scores[r : r + 1]),
            )
            looks = [*zip(scores, best.tolist(), worse.tolist(), strict=True)]
        else:
            looks = [self._likelihood(i) for i in range(len(self.tasks))]
        for i, (scores, is_best, is_worse) in enumerate(looks):
            self.worse[i] = is_worse
            if is_best:
                self.best_scores[i], self.best[i] = scores, self.replicas.evaluated[i]

    def _likelihood(self, replica: int) -> tuple[Tensor, bool, bool]:
        """The log-likelihood of a replica's validation points in nats, (1,), and how it compares with the best."""
        ledger, held_out = self.tasks[replica].ledger, self.held_out[replica]
        value = ledger.run("validation", held_out.log_likelihood, self.evaluated[replica])
        best = float(self.best_scores[replica])
        return self.best_scores.new_tensor([value]), value >= best, value < best

    def _show(self) -> None:
        """Show the present state; where it is worse than the best one, show that."""
        for i, is_worse in enumerate(self.worse):
            bind(self.shown[i], (self.best if is_worse else self.replicas.evaluated)[i])


def compared(best: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the bounds of states on validation points, (R, n), are the best so far, and whether they are worse: (R,).

    They are worse if the mean difference exceeds twice its standard error.
    """
    lost = best - found
    mean = lost.mean(1)
    return mean <= 0, mean > WORSE * lost.std(1) / math.sqrt(lost.shape[1])


class Stepper:
    """Steps of all replicas at once.

    Args:
        method: The method.
        replicas: The networks of all replicas.
    """

    def __init__(self, method: AmortisedMethod, replicas: Replicas):
        self.method, self.replicas = method, replicas
        usual, count = SCHEDULES[method.schedule], len(trained(replicas.members[0].model))
        of_model = sum(p.numel() for p in trained(replicas.members[0].model))
        whole = (JOINT, slice(None), replicas.parameters)
        split = (
            ("decoder", slice(of_model), replicas.parameters[:count]),
            ("encoder", slice(of_model, None), replicas.parameters[count:]),
        )
        self.parts = [
            (
                part,
                parameters,
                replicas.gradient[:, columns],
                (method.encoder_optimiser if part == "encoder" and method.encoder_optimiser else usual)(
                    replicas.weights[:, columns], replicas.evaluated[:, columns], method.learning_rate
                ),
            )
            for part, columns, parameters in (split if method.phased or method.encoder_optimiser else (whole,))
        ]

    def step(self, step: int, kinds: Sequence[str], batch: Batch) -> Sequence[Tensor]:
        """A step of each replica; returns the mean bound of each on its batch before the step, where phases need it.

        Args:
            step: The number of steps taken.
            kinds: What the step of each replica trains.
            batch: A batch.
        """
        found = self._objective(self.replicas.training, batch, step)
        wanted = [part for part in self.parts if any(kind in (part[0], JOINT) for kind in kinds)]
        loss = found.surrogate.sum() * (-1 / batch.x.shape[-2])
        self.replicas.differentiate(loss, [each for _, parameters, *_ in wanted for each in parameters])
        partial = [kind != JOINT for kind in kinds]
        for part, _, gradient, optimiser in wanted:
            if math.isfinite(longest := self.method.max_gradient_norm):
                gradient.mul_((longest / gradient.norm(dim=1, keepdim=True)).clamp(max=1))
            optimiser.step(gradient, [kind in (part, JOINT) for kind in kinds], step / self.method.steps, partial)
        return found.bound.mean(-1).view(-1).unbind() if self.method.phased else ()

    @torch.no_grad()
    def look(self, batch: Batch, best: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the weights that are evaluated with the best so far.

        Args:
            batch: Data, as for a step.
            best: Their bounds at the best weights so far, (R, n).

        Returns:
            Their bounds, (R, n); where their mean is at least the best; and where it is significantly below, (R,).
        """
        found = self._objective(self.replicas.mean, batch, self.method.steps).bound.view(best.shape)
        return found, *compared(best, found)

    def _objective(self, networks: Networks, batch: Batch, step: int) -> Objective:
        posterior = self.method.posterior_of_batch(networks.model, networks.encoder, batch.rows)
        return self.method.objective(networks.model, posterior, batch.x, batch.noise, step)


class Batch(NamedTuple):
    """Training points of a step with noise. With one replica there is no axis of replicas.

    Args:
        x: Data, (R, n, D).
        noise: Standard normal draws, (draws, R, n, L).
        rows: Which training points they are, (R, n, 1).
    """

    x: Tensor
    noise: Tensor
    rows: Tensor

    def of(self, replica: int) -> Batch:
        """The batch of one replica."""
        return Batch(self.x[replica], self.noise[:, replica], self.rows[replica])


class Batches:
    """Mini-batches with noise, without end: each replica has its own order and noise, from its own generator.

    Each pass over the data has a new order. What remains at the end of a pass is left out.

    Args:
        tasks: The fitting problems.
        size: Batch size; the number of data if that is less.
        draws: Draws of noise for each datum.
    """

    def __init__(self, tasks: Sequence[Task], size: int, draws: int):
        self.tasks, self.size, self.draws = tasks, min(size, len(tasks[0].train)), draws

    def __iter__(self) -> Iterator[Batch]:
        """Batches of all replicas."""
        while True:
            passes = [task.ledger.run("shuffle", self._shuffled, task) for task in self.tasks]
            for batch in zip(*passes, strict=True):
                x, index = zip(*batch, strict=True)
                yield Batch(_joined(x), self._noise(x), _joined(index))

    def _shuffled(self, task: Task) -> Sequence[tuple[Tensor, Tensor]]:
        """The batches of a pass, (n, D) each, and which training points they have, (n, 1)."""
        n = len(task.train)
        order = torch.randperm(n, generator=task.generator, device=task.generator.device)
        index = order[: n - n % self.size].view(-1, self.size)
        return [*zip(task.train[index].unbind(), index[..., None].unbind(), strict=True)]

    def _noise(self, x: Sequence[Tensor]) -> Tensor:
        return _joined(
            [task.ledger.run("noise", self._draw, task, each) for task, each in zip(self.tasks, x, strict=True)]
        )

    def _draw(self, task: Task, x: Tensor) -> Tensor:
        """Standard normal draws, (draws, n, L)."""
        shape = (self.draws, len(x), task.latent_dim)
        return torch.randn(shape, generator=task.generator, device=task.generator.device)

    def validation(self, per_datum: bool = False) -> Batch:
        """Validation points with noise that stays, in the form of a batch. No generator moves on.

        Args:
            per_datum: Take training points, as what is inferred belongs to these.
        """
        points = [(task.train if per_datum else task.validation)[:POINTS] for task in self.tasks]
        index = [torch.arange(len(each), device=each.device)[:, None] for each in points]
        states = [task.generator.get_state() for task in self.tasks]
        noise = self._noise(points)
        for task, state in zip(self.tasks, states, strict=True):
            task.generator.set_state(state)
        return Batch(_joined(points), noise, _joined(index))


def _joined(of_each: Sequence[Tensor]) -> Tensor:
    """Tensors of replicas as one, whose third axis from the end is that of replicas; the tensor itself of one."""
    return of_each[0] if len(of_each) == 1 else torch.stack(list(of_each), -3)


def together(tasks: Sequence[Task], names: Sequence[str], work: Callable[[], T], alone: Callable[[int], object]) -> T:
    """Do work of all replicas at once, and account for it as if each did its own alone.

    Args:
        tasks: The fitting problems.
        names: What the work of each replica is called in the tables.
        work: The work of all replicas.
        alone: The work of one replica, which is done only to count what it costs.
    """
    if len(tasks) == 1:
        return tasks[0].ledger.run(names[0], work)
    for i, (task, name) in enumerate(zip(tasks, names, strict=True)):
        task.ledger.repeat(name, partial(alone, i))
    return work()
