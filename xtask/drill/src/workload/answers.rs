//! What an answer is worth. An error counts as honest only if it is one of the three statuses that
//! mean "not now", in the form that the API promises for all its errors.

use super::journal::Outcome;
use crate::load::{Answer, Failure};

/// Judges an answer to a request that is answered with `expected` when all is well.
pub fn judge(expected: u16, answer: &Result<Answer, Failure>) -> Outcome {
    match answer {
        Ok(answer) if answer.status == expected => Outcome::Fine,
        Ok(answer) if matches!(answer.status, 502..=504) => {
            Outcome::Unavailable { status: answer.status, malformed: malformed(answer) }
        }
        Ok(answer) => {
            let body: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
            Outcome::Wrong(format!("{} instead of {expected}: {body}", answer.status))
        }
        Err(failure) => Outcome::NoAnswer(failure.to_string()),
    }
}

/// What is missing in a problem document (RFC 9457), or nothing.
fn malformed(answer: &Answer) -> Option<String> {
    let kind = answer.header("content-type");
    if !kind.starts_with("application/problem+json") {
        return Some(format!("its content type is {kind:?}"));
    }
    let body = answer.json();
    if body["status"] != answer.status {
        return Some(format!("its body says status {}", body["status"]));
    }
    let missing = ["type", "title", "detail", "request_id"];
    if let Some(member) = missing.iter().find(|member| !body[**member].is_string()) {
        return Some(format!("its body has no {member:?}"));
    }
    if answer.header("retry-after").parse::<u32>().is_err() {
        return Some("it does not say when to come back (Retry-After)".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};

    use super::*;

    fn problem(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        Answer { status, headers, body: body.into() }
    }

    const WHOLE: &str =
        r#"{"type":"about:blank","title":"T","status":503,"detail":"D","request_id":"r"}"#;

    #[test]
    fn an_honest_error_has_the_promised_form() {
        let judged = judge(200, &Ok(problem(503, WHOLE)));
        assert_eq!(judged, Outcome::Unavailable { status: 503, malformed: None });
        let wrong_status = judge(200, &Ok(problem(502, WHOLE)));
        assert!(matches!(wrong_status, Outcome::Unavailable { malformed: Some(_), .. }));
        let page = Answer { headers: HeaderMap::new(), ..problem(503, "<html>") };
        assert!(matches!(judge(200, &Ok(page)), Outcome::Unavailable { malformed: Some(_), .. }));
    }

    #[test]
    fn no_fault_explains_another_status() {
        for status in [200, 401, 404, 429, 500] {
            assert!(matches!(judge(201, &Ok(problem(status, WHOLE))), Outcome::Wrong(_)));
        }
        assert_eq!(judge(201, &Ok(problem(201, "{}"))), Outcome::Fine);
        let none = judge(201, &Err(Failure::TimedOut));
        assert_eq!(none, Outcome::NoAnswer("no answer in time".to_owned()));
    }
}
