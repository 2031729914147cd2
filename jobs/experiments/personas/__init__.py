"""Memory across modalities: facts about invented people."""
