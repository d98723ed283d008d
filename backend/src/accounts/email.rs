//! E-mail addresses, as far as they can be judged without sending one.

/// An address in lower case, so that one person has one account however it is typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Email(String);

impl Email {
    /// Checks the form only: whether it exists is known once a message was answered.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "Enter an e-mail address such as name@example.com.";
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(WRONG)?;
        // ASCII only: elsewhere two addresses may look alike, or one may look like nothing. Names
        // of other scripts have an ASCII form (`xn--…`).
        let clean = text.bytes().all(|byte| byte.is_ascii_graphic());
        let good_domain = domain.split('.').all(|label| !label.is_empty());
        // 254 characters is the most that SMTP carries.
        if local.is_empty() || local.contains('@') || !good_domain || !clean || text.len() > 254 {
            return Err(WRONG);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_trimmed_and_lowered() {
        assert_eq!(Email::parse(" Ada@Example.COM ").unwrap().as_str(), "ada@example.com");
        assert!(Email::parse("ada+list@mail.example").is_ok());
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(250));
        for text in ["", "@", "ada", "ada@", "@example.com", "a b@c.d", "a@b@c.d", "a@b..c", &long]
            .into_iter()
            .chain([
                "\u{430}@b.c",
                "\u{212a}@b.c",
                "a\u{202e}@b.c",
                "a\u{200b}@b.c",
                "a\u{ff20}b.c",
            ])
        {
            assert!(Email::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever is accepted is plain, bounded, in lower case, and accepted again unchanged.
        #[test]
        fn what_is_accepted_is_in_its_final_form(text in "\\PC{0,40}(@|\\PC)\\PC{0,40}") {
            if let Ok(email) = Email::parse(&text) {
                let kept = email.as_str();
                proptest::prop_assert!(kept.is_ascii() && kept.len() <= 254);
                proptest::prop_assert_eq!(kept.to_lowercase(), kept);
                proptest::prop_assert_eq!(kept.matches('@').count(), 1);
                proptest::prop_assert_eq!(Email::parse(kept).unwrap(), email);
            }
        }

        /// However it is typed, an ordinary address is the same one.
        #[test]
        fn ordinary_addresses_are_accepted_in_any_case(
            text in "[a-z0-9.+_-]{1,20}@[a-z0-9-]{1,20}(\\.[a-z]{2,6}){1,2}",
        ) {
            let upper = Email::parse(&format!(" {} ", text.to_uppercase())).unwrap();
            proptest::prop_assert_eq!(upper.as_str(), text);
        }
    }
}
