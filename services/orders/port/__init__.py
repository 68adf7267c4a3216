"""Chinese customs' port: where papers are XML, and persons in clear. Nothing of it goes to a topic, a log or a database."""
