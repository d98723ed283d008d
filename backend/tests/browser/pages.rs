//! What holds for every page, whoever looks at it.

use crate::browser::with_browser;

/// Landmarks and headings: how a person who hears the page finds the way.
const OUTLINE: &str = r#"
    const count = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).length;
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    return {
        headers: count("body > header"), mains: count("main"), titles: count("h1"),
        language: document.documentElement.lang,
        twice: ids.filter((id, at) => ids.indexOf(id) !== at),
    };
"#;

#[tokio::test]
async fn every_page_can_be_read_by_everybody() {
    with_browser("pages", async |browser| {
        for (path, name, title) in [
            ("/", "entrance", "Sign in"),
            ("/about", "about", "What is kept about you"),
            ("/nowhere", "404", "There is no such page"),
        ] {
            browser.open(path).await;
            browser.sees(title).await;
            browser.expect_calm(name).await;
            browser.looks(name).await;
            let outline = browser.run(OUTLINE).await;
            let wanted = serde_json::json!({
                "headers": 1, "mains": 1, "titles": 1, "language": "en", "twice": [],
            });
            assert_eq!(outline, wanted, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_control_of_the_entrance_has_a_name() {
    with_browser("entrance", async |browser| {
        browser.open("/").await;
        browser.sees("Sign in").await;
        let controls = browser.controls().await;
        let site = browser.client.title().await.unwrap();
        let wanted = [
            "link: Skip to the content",
            &format!("link: {site}"),
            "textbox: E-mail address",
            "textbox: Password",
            "button: Sign in",
            "button: Create an account",
            "link: What is kept about you",
        ];
        assert_eq!(controls, wanted);
    })
    .await;
}
