//! Requests to the hub: with a limit of everything, again where it may help, and with the token for the hub alone.

use super::Hub;
use crate::cpu::Control;
use crate::error::{Error, Result};
use std::io::Read;
use std::thread;
use std::time::Duration;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

/// How often a request is tried that brings nothing.
const TRIES: u32 = 5;
const MAX_REDIRECTS: usize = 10;
/// A connection that brings nothing for as long is given up; one that is busy as long is made anew.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends requests.
pub(super) struct Http<'a> {
    hub: &'a Hub,
    agent: Agent,
}

/// Why a request brought nothing.
pub(super) enum Trouble {
    /// It may help to try again.
    Passing(String),
    Final(Error),
}

impl Trouble {
    pub(super) fn on(self, url: &str) -> Error {
        match self {
            Self::Passing(reason) => Error::download(url, reason),
            Self::Final(error) => error,
        }
    }
}

impl<'a> Http<'a> {
    pub(super) fn new(hub: &'a Hub) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_recv_body(Some(PATIENCE))
            .user_agent(concat!("llava/", env!("CARGO_PKG_VERSION")));
        Self { hub, agent: config.build().into() }
    }

    /// A text of at most `max` bytes.
    pub(super) fn text(&self, url: &str, max: u64, control: &Control) -> Result<String, Trouble> {
        self.again(url, control, |progress| {
            *progress = false;
            let response = self.send(url, 0)?;
            let mut text = Vec::new();
            let read = response.into_body().into_reader().take(max + 1).read_to_end(&mut text);
            read.map_err(|e| Trouble::Passing(e.to_string()))?;
            if text.len() as u64 > max {
                return Err(Trouble::Final(Error::download(url, format!("the answer is longer than {max} bytes"))));
            }
            String::from_utf8(text).map_err(|_| Trouble::Final(Error::download(url, "the answer is no text")))
        })
    }

    /// Reads a file from byte `*at` on. `on_bytes` takes what comes, and moves `at`; a connection that breaks is made anew
    /// there. A server that begins at 0 all the same is told by `restart`.
    pub(super) fn file(
        &self,
        url: &str,
        at: &mut u64,
        control: &Control,
        mut restart: impl FnMut() -> Result<()>,
        mut on_bytes: impl FnMut(&[u8]) -> Result<()>,
        size: u64,
    ) -> Result<()> {
        // A server that always begins at 0, and always breaks off, brings nothing new.
        let mut furthest = *at;
        self.again(url, control, |progress| {
            let response = self.send(url, *at)?;
            if *at > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                restart().map_err(Trouble::Final)?;
                *at = 0;
            }
            let mut body = response.into_body().into_reader();
            let mut buffer = vec![0; 1 << 16];
            loop {
                control.check().map_err(Trouble::Final)?;
                let n = body.read(&mut buffer).map_err(|e| Trouble::Passing(e.to_string()))?;
                if n == 0 {
                    break;
                }
                if n as u64 > size - *at {
                    let reason = format!("brings more than the {size} bytes that the hub says it has");
                    return Err(Trouble::Final(Error::download(url, reason)));
                }
                on_bytes(&buffer[..n]).map_err(Trouble::Final)?;
                *at += n as u64;
                *progress |= *at > furthest;
                furthest = furthest.max(*at);
            }
            match *at == size {
                true => Ok(()),
                false => Err(Trouble::Passing(format!("the connection ended after {at} of {size} bytes"))),
            }
        })
        .map_err(|trouble| trouble.on(url))
    }

    /// Tries until it works, or nothing has come five times in a row.
    fn again<T>(
        &self,
        url: &str,
        control: &Control,
        mut send: impl FnMut(&mut bool) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let (mut failures, mut pause) = (0, self.hub.pause);
        loop {
            let mut progress = false;
            let reason = match send(&mut progress) {
                Ok(value) => return Ok(value),
                Err(Trouble::Passing(reason)) => reason,
                Err(last) => return Err(last),
            };
            log::info!("{url}: {reason}");
            if progress {
                (failures, pause) = (0, self.hub.pause);
            }
            failures += 1;
            if failures == TRIES {
                return Err(Trouble::Passing(reason));
            }
            // In short naps, to be cancelled.
            let mut left = pause;
            while !left.is_zero() {
                control.check().map_err(Trouble::Final)?;
                let nap = left.min(Duration::from_millis(100));
                thread::sleep(nap);
                left -= nap;
            }
            pause *= 2;
        }
    }

    /// A response that is one, from byte `at` on.
    fn send(&self, first: &str, at: u64) -> Result<Response<Body>, Trouble> {
        let mut url = first.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            if let Some(token) = self.hub.token.as_ref().filter(|_| origin(&url) == origin(&self.hub.endpoint)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if at > 0 {
                request = request.header(header::RANGE, format!("bytes={at}-"));
            }
            let response = request.call().map_err(|e| Trouble::Passing(e.to_string()))?;
            let status = response.status();
            if status.is_redirection() {
                let to = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
                let Some(next) = to.and_then(|to| joined(&url, to)) else {
                    return Err(Trouble::Final(Error::download(&url, "redirects to nowhere")));
                };
                url = next;
                continue;
            }
            return match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                    Err(Trouble::Passing(status.to_string()))
                }
                _ if status.is_server_error() => Err(Trouble::Passing(status.to_string())),
                _ => Err(Trouble::Final(Error::download(&url, refusal(status, self.hub.token.is_some())))),
            };
        }
        Err(Trouble::Final(Error::download(first, format!("redirects more than {MAX_REDIRECTS} times"))))
    }
}

fn refusal(status: StatusCode, with_token: bool) -> String {
    match (status, with_token) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, false) => format!(
            "{status}: the repository does not exist, or wants to know who asks: accept its terms on its page, and set HF_TOKEN \
             to a token of yours"
        ),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, true) => {
            format!(
                "{status}: HF_TOKEN is not let in: is it still valid, and have you accepted the repository's terms on its page?"
            )
        }
        (StatusCode::NOT_FOUND, _) => format!("{status}: there is no such repository, revision or file"),
        _ => status.to_string(),
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url[after..].find(['/', '?', '#']).map_or(url.len(), |at| after + at);
    &url[..end]
}

/// Where a redirection leads: a whole URL, or a path on the same server. A page that came encrypted does not lead to one that
/// does not.
fn joined(from: &str, to: &str) -> Option<String> {
    let whole = match to {
        _ if to.starts_with("https://") || to.starts_with("http://") => to.to_owned(),
        _ if to.starts_with("//") => format!("{}:{to}", from.split_once(':')?.0),
        _ if to.starts_with('/') => format!("{}{to}", origin(from)),
        _ => return None,
    };
    (whole.starts_with("https://") || from.starts_with("http://")).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_leads_where_it_says_and_never_out_of_encryption() {
        let from = "https://hub/a/b?c";
        assert_eq!(joined(from, "/x?y"), Some("https://hub/x?y".into()));
        assert_eq!(joined(from, "https://cdn/x"), Some("https://cdn/x".into()));
        assert_eq!(joined(from, "//cdn/x"), Some("https://cdn/x".into()));
        assert_eq!(joined(from, "http://cdn/x"), None);
        assert_eq!(joined(from, "file:///etc/passwd"), None);
        assert_eq!(joined("http://hub:1/a", "http://cdn/x"), Some("http://cdn/x".into()));
        assert_eq!(origin("http://hub:1/a"), "http://hub:1");
        assert_eq!(origin("https://hub?x@evil/"), "https://hub");
    }
}
