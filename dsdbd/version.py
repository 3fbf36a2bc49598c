"""The one version string: every header, banner and file that states a version takes it from here."""

VERSION = "0.1.0"
