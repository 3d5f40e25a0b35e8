//! Verbs by which other tools call ours: understood, and shown nowhere.

use clap::Command;

const SYNONYMS: [(&str, &[&str]); 3] =
    [("ls", &["list"]), ("rm", &["delete", "remove"]), ("show", &["info", "get"])];

/// The same grammar, with these verbs.
pub fn with_synonyms(command: Command) -> Command {
    let own = SYNONYMS.iter().find(|(verb, _)| *verb == command.get_name());
    let others = own.map_or(&[][..], |(_, others)| *others);
    command.aliases(others).mut_subcommands(with_synonyms)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::super::{Arguments, Command, Lu};
    use super::*;

    #[test]
    fn verbs_of_others_are_understood() {
        let parsed = |line: &[&str]| {
            let matches = with_synonyms(Arguments::command()).try_get_matches_from(line).unwrap();
            Arguments::from_arg_matches(&matches).unwrap().command
        };
        let list = parsed(&["viaduct", "lu", "list"]);
        assert!(matches!(list, Command::Lu(Lu::Ls)), "{list:?}");
        let delete = parsed(&["viaduct", "lu", "delete", "web"]);
        assert!(matches!(delete, Command::Lu(Lu::Rm { .. })), "{delete:?}");
        with_synonyms(Arguments::command()).debug_assert();
    }
}
