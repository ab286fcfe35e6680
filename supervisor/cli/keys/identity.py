"""`keys generate` and `keys show`: makes and shows the agent's identity pair."""

import os

import click

from bus.settings.places import absolute_path
from bus.settings.reader import SettingsError, SettingsReader
from bus.settings.shared import AGENT_ID, agent_id_of
from crypto import strict_base64
from crypto.identity import IdentityKeys, PublicIdentity
from crypto.keystore import Keystore, environment_lines, fingerprint_hex, fingerprint_words
from supervisor.cli.keys.telling import told
from supervisor.settings.key_settings import keystore_path, read_private_keys
from supervisor.settings.keystore_files import write_keystore
from supervisor.settings.table import KEYSTORE


@click.command(short_help="Make the agent's private keys.")
@click.option("--keystore", "into_keystore", is_flag=True, help="Write ~/.hashee/<agent id>/keystore.json.")
@click.option("--agent-id", metavar="UUID", help="With --keystore: the agent (HASHEE_AGENT_ID).")
def generate(into_keystore: bool, agent_id: str | None) -> None:
    """Make a new identity pair: two lines for the environment, or with --keystore a file that is found without any.

    HASHEE_KEYSTORE names another file. One that is there already is never written over.
    """
    identity = IdentityKeys.generate(os.urandom)
    if not into_keystore:
        for line in environment_lines(identity):
            click.echo(line)
        return
    given = {} if agent_id is None else {AGENT_ID.name: agent_id}
    reader = SettingsReader({**os.environ, **given})
    agent_id = agent_id_of(reader)
    path = reader.optional(KEYSTORE, absolute_path) or keystore_path(reader, agent_id)
    if path is None:
        raise SettingsError(KEYSTORE.name, KEYSTORE.expectation, missing=True)  # there is no home to put it into
    reader.finish()
    with told():
        write_keystore(path, Keystore(agent_id, identity))
    click.echo(f"keystore     {path}")
    _show(agent_id, identity.public)


@click.command(short_help="Show the fingerprint and the public keys.")
def show() -> None:
    """Show the fingerprint by which people compare this agent's keys, the public keys, and where the keys were found."""
    found = read_private_keys(os.environ)
    agent_id = agent_id_of(SettingsReader(os.environ))
    _show(agent_id, found.identity.public)
    click.echo(f"found in     {found.place}")


def _show(agent_id: str, public: PublicIdentity) -> None:
    fingerprint = public.fingerprint(agent_id)
    words = fingerprint_words(fingerprint).split()
    click.echo(f"agent        {agent_id}")
    click.echo(f"fingerprint  {' '.join(words[:8])}")
    click.echo(f"             {' '.join(words[8:])}")
    click.echo(f"             {fingerprint_hex(fingerprint)}")
    click.echo(f"X25519       {strict_base64.encode(public.agreement_key)}")
    click.echo(f"Ed25519      {strict_base64.encode(public.signing_key)}")
