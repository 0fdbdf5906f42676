"""Several processes, on one machine or many, that work on one study through files of a shared folder."""
