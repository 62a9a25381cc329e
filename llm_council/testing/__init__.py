"""The public kit for authors of providers; nothing that ships imports it. Needs the extra ``testing``."""
