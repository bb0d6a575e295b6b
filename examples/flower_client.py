"""A Flower client mod that audits an update before it leaves, and sends, refuses or projects it.

Run: python examples/flower_client.py

or with one of the actions send, refuse (the default) and project. With Flower (pip install
-c constraints-flower.txt 'exan-verify[flower]') it is a simulation of two clients; without it the same two
clients answer the server one after the other in this process.

The audit is of one step of plain SGD: of the gradient that the update is -lr times. Clients that take more
steps before they send give away something else, which exan-verify attacks (attack, local_steps=), and does
not certify.
"""

import sys
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from exan_verify import attack, audit, project_inputs
from exan_verify.data import mnist_batch

LR, SAMPLES, ROUNDS = 0.1, 4, 2
ACTIONS = ("send", "refuse", "project")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)).double()


def public_directions(count=16):
    """Directions that are chosen without the clients' data: cosines, in entries that floats hold exactly."""
    rows = np.cos(np.pi * (np.arange(28)[:, None] + 0.5) * np.arange(4)[None] / 28)
    basis = np.einsum("ia,jb->ijab", rows, rows).reshape(784, 16)[:, :count]
    return np.round(basis / np.linalg.norm(basis, axis=0) * 4096) / 4096


def step(model, batch):
    """The weights after one step of SGD on a batch."""
    x, y = batch
    loss = nn.functional.cross_entropy(model(torch.as_tensor(x).double()), torch.as_tensor(y))
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    named = zip(model.named_parameters(), gradient, strict=True)
    return {name: (weight - LR * part).detach() for (name, weight), part in named}


class Guard:
    """What stands between a client's step and the network. Everything here is free of Flower.

    ``refuse``: where one sample is proved determined, nothing leaves: the weights go back as they came.
    ``project``: such a step is made anew by a first layer that sees public directions of the inputs only, so
    that what is sent is a function of these, whatever weights the server sends.
    """

    def __init__(self, action):
        self.action = action

    def __call__(self, model, batch, after):
        """The weights to send, and what is known of them. ``model`` is as received, ``after`` as trained."""
        found = audit(model, batch)
        if self.action == "send" or found.gate("determined") == "passed":
            return after, self.said("sent", found)
        if self.action == "refuse":
            return dict(model.named_parameters()), self.said("refused", found)
        basis = public_directions()
        narrow = project_inputs(model, basis)
        before, (first, *_) = dict(narrow.named_parameters()), after
        moved = {name: one - before[name] for name, one in step(narrow, batch).items()}
        moved[first] = moved[first] @ torch.as_tensor(basis).T  # dV B^T: no more than dV says
        sent = {name: (one + moved[name]).detach() for name, one in model.named_parameters()}
        return sent, self.said("projected", audit(narrow, batch))

    @staticmethod
    def said(what, found):
        free = found.verdict.samples.count("free")
        return {"audit": what, "determined": found.verdict.determined, "free": free, "of": found.batch_size}


def client_batch(client, of_round):
    return mnist_batch(SAMPLES, seed=10 * of_round + client)


def server_sees(model, sent, batch):
    """What an attack on one update rebuilds of the batch: how many within an RMSE of 1e-3, and the median."""
    update = {name: sent[name] - before for name, before in model.named_parameters()}
    if not any(one.any() for one in update.values()):
        return "nothing left"
    found = attack(model, update, scale=-LR, batch_size=SAMPLES, budget=20).x
    if not len(found):
        return f"the server rebuilds 0 of {SAMPLES}"
    distances = torch.cdist(torch.as_tensor(batch[0]).double(), found.double()) / found.shape[1] ** 0.5
    nearest = distances.min(dim=1).values
    rebuilt = int((nearest < 1e-3).sum())
    return f"the server rebuilds {rebuilt} of {SAMPLES}, the median RMSE is {nearest.median():.1e}"


def told(client, said, seen):
    proved = f"{said['determined']} of {said['of']} samples proved determined, {said['free']} free"
    print(f"client {client}: {said['audit']}; {proved}; {seen}", flush=True)


def by_hand(action):
    """Two clients without Flower: what FedAvg does, written out."""
    model, guard = network(), Guard(action)
    for of_round in range(ROUNDS):
        answers = []
        for client in (0, 1):
            batch = client_batch(client, of_round)
            sent, said = guard(model, batch, step(model, batch))
            told(client, said, server_sees(model, sent, batch))
            answers.append(sent)
        model.load_state_dict({name: sum(one[name] for one in answers) / 2 for name in answers[0]})


def in_flower(action):
    """The same with Flower: the mod sees what comes in and what goes out, the training is anybody's."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    def received(message):
        model = network()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        client = int(message.content["config"]["first"] != message.metadata.dst_node_id)
        return model, client, client_batch(client, message.content["config"]["server-round"] - 1)

    def guarding(message, context, call_next):
        """The client mod: whatever trains is called, and what it answers is looked at before it leaves."""
        model, client, batch = received(message)
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        sent, said = Guard(action)(model, batch, reply.content["arrays"].to_torch_state_dict())
        told(client, said, server_sees(model, sent, batch))
        reply.content["arrays"] = ArrayRecord(sent)
        reply.content["metrics"]["determined"] = said["determined"]
        return reply

    app = ClientApp()

    @app.train(mods=[guarding])
    def train(message, _context):
        model, _, batch = received(message)
        content = {
            "arrays": ArrayRecord(step(model, batch)),
            "metrics": MetricRecord({"num-examples": SAMPLES}),
        }
        return Message(content=RecordDict(content), reply_to=message)

    server = ServerApp()

    @server.main()
    def main(grid, _context):
        while len(nodes := sorted(grid.get_node_ids())) < 2:
            pass
        strategy = FedAvg(fraction_evaluate=0.0)
        arrays = ArrayRecord(network().state_dict())
        config = ConfigRecord({"first": nodes[0]})
        strategy.start(grid, arrays, num_rounds=ROUNDS, train_config=config)

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, app, num_supernodes=2, backend_config=resources)


def main(action="refuse"):
    if action not in ACTIONS:
        sys.exit(f"say one of {', '.join(ACTIONS)}")
    with_flower = find_spec("flwr") is not None
    print(f"two clients {'in Flower' if with_flower else 'without Flower'}, action {action}")
    (in_flower if with_flower else by_hand)(action)


if __name__ == "__main__":
    main(*sys.argv[1:2])
