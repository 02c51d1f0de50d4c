"""The paper's two analyses on public samples: what fields repeat of each other, and what dense layers can lose."""
