//! The chat template inside a GGUF file, run as Hugging Face runs it.
//!
//! A template is a program by a stranger: it has no access to anything but the conversation, and runs on fuel and under
//! guard, which together bound its time and its memory.

use super::{Message, Part, Piece, Pieces, Role, guard, json};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const NAME: &str = "tokenizer.chat_template";

/// Stands for an image inside a message: a code point that Unicode keeps out of interchange. It is taken out of texts.
const IMAGE: char = '\u{fdd0}';
/// What templates that know images write for one. [`Message::clean_text`] takes it out of texts.
const IMAGE_TAG: &str = "<image>";
/// A rendering may take this many steps, of which one also pays for 64 bytes of text, …
const FUEL: u64 = 30_000;
/// … so many more for each message, …
const FUEL_PER_MESSAGE: u64 = 500;
/// … and so many copies of the conversation's text.
const COPIES: u64 = 16;
/// Published templates stay below half of this.
const MAX_SOURCE: usize = 64 << 10;
/// Stack for compiling and rendering: the engine recurses on chains of operators, whose length the guard bounds.
const STACK: usize = 16 << 20;

/// How a template wants a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// As one string, the images in front.
    Text,
    /// As a list of `{"type": "image"}` and `{"type": "text", "text": …}`.
    List,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct Jinja {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    /// Whether the tokenizer writes BOS, so that the template must not.
    adds_bos: bool,
    /// The form of content that the source suggests, and the other.
    forms: [Content; 2],
}

impl Jinja {
    /// Compiles `source`; the names of BOS and EOS are `tokenizer`'s.
    ///
    /// # Errors
    /// [`Error::Template`] if the source is no template or unreasonably long.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            return Err(template_error(format!("it has {} bytes, the limit is {MAX_SOURCE}", source.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| template_error(e.to_string()))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", |text: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, SystemTime::now()));
        let instrumented = guard::instrument(source).map_err(template_error)?;
        let lists = source.contains("image") && source.contains("type");
        let environment = on_large_stack(move || {
            environment.add_template_owned(NAME, instrumented).map_err(|e| template_error(describe(&e)))?;
            Ok(environment)
        })?;
        let text_of = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default().to_owned();
        Ok(Self {
            environment,
            bos: text_of(tokenizer.bos()),
            eos: text_of(tokenizer.eos()),
            adds_bos: tokenizer.adds_bos(),
            forms: if lists { [Content::List, Content::Text] } else { [Content::Text, Content::List] },
        })
    }

    pub(super) fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<Piece>> {
        let images: usize = messages.iter().map(Message::images).sum();
        let mut first_failure = None;
        for form in self.forms {
            let attempt = self.render_as(form, messages, add_generation_prompt).and_then(|pieces| {
                let found = pieces.iter().filter(|piece| **piece == Piece::Image).count();
                match found == images {
                    true => Ok(pieces),
                    false => Err(template_error(format!("it shows {found} of {images} images"))),
                }
            });
            match attempt {
                Ok(pieces) => return Ok(pieces),
                Err(error) => first_failure = first_failure.or(Some(error)),
            }
        }
        Err(first_failure.unwrap_or_else(|| template_error("it cannot be rendered".to_owned())))
    }

    fn render_as(&self, form: Content, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<Piece>> {
        let (mut bytes, mut values) = (0, 0);
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let text = message.clean_text().replace(IMAGE, "");
                bytes += text.len() as u64;
                values += 8 * (1 + message.content.len());
                context! { role => message.role.name(), content => content(form, message, &text) }
            })
            .collect();
        let count = messages.len() as u64;
        let context =
            context! { messages, add_generation_prompt, bos_token => self.bos.clone(), eos_token => self.eos.clone() };
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * count + COPIES * bytes / 64));
        guard::arm(&mut environment, values);
        let rendered = on_large_stack(move || {
            let template = environment.get_template(NAME).map_err(|e| template_error(describe(&e)))?;
            template.render(context).map_err(|e| template_error(describe(&e)))
        })?;
        let prompt = rendered.strip_prefix(self.bos.as_str()).filter(|_| self.adds_bos).unwrap_or(&rendered);
        let marker = match form {
            Content::Text => IMAGE.to_string(),
            Content::List => IMAGE_TAG.to_owned(),
        };
        let mut pieces = Pieces::default();
        for (i, text) in prompt.split(&marker).enumerate() {
            if i > 0 {
                pieces.image();
            }
            pieces.text(text);
        }
        Ok(pieces.0)
    }
}

fn content(form: Content, message: &Message, text: &str) -> Value {
    let images = message.images();
    let text = if message.role == Role::User { text.trim() } else { text };
    match form {
        Content::Text if images > 0 => Value::from(IMAGE.to_string().repeat(images) + "\n" + text),
        Content::Text => Value::from(text),
        Content::List => {
            let images = message.content.iter().filter(|part| **part == Part::Image);
            images.map(|_| context! { type => "image" }).chain([context! { type => "text", text }]).collect()
        }
    }
}

fn template_error(reason: String) -> Error {
    Error::Template { name: NAME.to_owned(), reason }
}

/// The error, its place and its causes in one line.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs `work` on a thread of its own, because the depth of the template decides how much stack it takes.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK);
        let thread =
            thread.spawn_scoped(scope, work).map_err(|e| template_error(format!("no thread to run it: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(template_error("the template engine panicked".to_owned())))
    })
}

/// The time in UTC, in the formats of C's `strftime` that templates use for a date.
fn strftime(format: &str, time: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days, for days after 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let (month_name, day_name) = (MONTHS[month as usize], DAYS[(days % 7) as usize]);

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('m') => out += &format!("{:02}", month + 1),
            Some('d') => out += &format!("{day:02}"),
            Some('B') => out += month_name,
            Some('b') => out += &month_name[..3],
            Some('A') => out += day_name,
            Some('a') => out += &day_name[..3],
            Some('H') => out += &format!("{:02}", second / 3600),
            Some('M') => out += &format!("{:02}", second / 60 % 60),
            Some('S') => out += &format!("{:02}", second % 60),
            Some(other) => out.extend(Some('%').filter(|_| other != '%').into_iter().chain([other])),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_agree_with_c() {
        for (seconds, expected) in [
            (0, "Thu 01 Jan 1970"),
            (951_782_400, "Tue 29 Feb 2000"),
            (1_735_689_599, "Tue 31 Dec 2024"),
            (1_740_787_200, "Sat 01 Mar 2025"),
        ] {
            assert_eq!(strftime("%a %d %b %Y", UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
