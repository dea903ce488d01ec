//! `llava chat`: a conversation, line by line.

use crate::args::ChatArgs;
use crate::describe::follow;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use crate::transcript::Transcript;
use llava::{Image, Session};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

const HELP: &str = "\
/image FILE  show an image with the next question
/reset       forget the conversation
/save FILE   write the conversation as JSON
/help        this list
/quit        leave, as Ctrl-D does; Ctrl-C stops an answer";

/// A conversation at a terminal or through a pipe.
struct Chat {
    session: Session,
    interrupt: Interrupt,
    /// Paths of the images of the conversation, in order.
    images: Vec<String>,
    /// For the next question.
    attached: Vec<Image>,
    /// Whether somebody types.
    interactive: bool,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Nothing,
    Question(&'a str),
    Image(&'a Path),
    Reset,
    Save(&'a Path),
    Help,
    Quit,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Result<Self, Failure> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if !line.starts_with('/') {
            return Ok(Self::Question(line));
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (command, rest.is_empty()) {
            ("/image", false) => Ok(Self::Image(Path::new(rest))),
            ("/save", false) => Ok(Self::Save(Path::new(rest))),
            ("/image" | "/save", true) => Err(Failure::Run(format!("{command} needs the name of a file"))),
            ("/reset", true) => Ok(Self::Reset),
            ("/help", true) => Ok(Self::Help),
            ("/quit", true) => Ok(Self::Quit),
            ("/reset" | "/help" | "/quit", false) => Err(Failure::Run(format!("{command} stands alone"))),
            _ => Err(Failure::Run(format!("there is no command {command}; /help lists them"))),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// An image of the command line that can't be read ends it. Later errors are reported and the conversation goes on;
/// where nobody types they end in [`Failure::Reported`].
pub fn run(args: &ChatArgs) -> Result<(), Failure> {
    let generation = args.answer.generation()?;
    let model = args.model.load(args.answer.template.as_deref())?;
    let mut session = model.session();
    session.set_generation(generation)?;
    let interactive = io::stdin().is_terminal();
    let interrupt = Interrupt::install()?;
    let mut chat = Chat { session, interrupt, images: Vec::new(), attached: Vec::new(), interactive };
    for path in &args.images {
        chat.attach(path)?;
    }
    chat.note("Ask something; /help lists the commands.");
    let mut failed = false;
    let mut line = Vec::new();
    while chat.read(&mut line)? {
        let text = std::str::from_utf8(&line).map_err(|e| Failure::Run(format!("this line is not UTF-8: {e}")));
        match text.and_then(Line::parse).and_then(|line| chat.obey(line)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(Failure::Run(reason) | Failure::Usage(reason)) => {
                output::error(&reason);
                failed = true;
            }
            // Stopped before its first word.
            Err(Failure::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    if failed && !interactive { Err(Failure::Reported) } else { Ok(()) }
}

impl Chat {
    /// The next line; false at the end.
    fn read(&self, line: &mut Vec<u8>) -> Result<bool, Failure> {
        if self.interactive {
            self.interrupt.prompts();
            let mut err = io::stderr();
            // A prompt that can't be shown is no reason to stop listening.
            let _ = err.write_all(b"> ").and_then(|()| err.flush());
        } else {
            self.interrupt.ends_program();
        }
        line.clear();
        let read = io::stdin().lock().read_until(b'\n', line);
        let n = read.map_err(|e| Failure::Run(format!("standard input: {e}")))?;
        if n == 0 {
            self.note("");
        }
        Ok(n > 0)
    }

    /// Does what a line asks for; false to leave.
    fn obey(&mut self, line: Line<'_>) -> Result<bool, Failure> {
        match line {
            Line::Nothing => {}
            Line::Question(text) => self.ask(text)?,
            Line::Image(path) => self.attach(path)?,
            Line::Reset => {
                self.session.reset();
                self.images.clear();
                self.attached.clear();
                self.note("The conversation is forgotten.");
            }
            Line::Save(path) => self.save(path)?,
            Line::Help => output::note(HELP),
            Line::Quit => return Ok(false),
        }
        Ok(true)
    }

    fn attach(&mut self, path: &Path) -> Result<(), Failure> {
        let image = Image::open(path)?;
        let tokens = self.session.model().image_tokens(image.width(), image.height())?;
        let (w, h) = (image.width(), image.height());
        self.note(&format!("{}: {w} × {h} pixels, {tokens} tokens", path.display()));
        self.attached.push(image);
        Ok(())
    }

    fn ask(&mut self, text: &str) -> Result<(), Failure> {
        self.interrupt.stops(self.session.control());
        let images: Vec<&Image> = self.attached.iter().collect();
        let progress = Progress::start("thinking");
        progress.follow(&self.session.control());
        let begun = self.session.stream(text, &images);
        if let Err(llava::Error::ContextFull { .. }) = &begun
            && !images.is_empty()
        {
            self.attached.clear();
            output::note("The images of this question are taken back.");
            return begun.map(drop).map_err(Failure::from);
        }
        let mut stream = begun?;
        drop(progress);
        self.images.extend(self.attached.drain(..).map(|i| i.name().to_owned()));
        let followed = follow(&mut stream, &self.interrupt, output::answer);
        drop(stream);
        output::text("\n")?;
        followed
    }

    fn save(&self, path: &Path) -> Result<(), Failure> {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Transcript::new(id, &self.images, self.session.messages()).save(path)?;
        self.note(&format!("{} is written.", path.display()));
        Ok(())
    }

    /// Something to know for somebody who types.
    fn note(&self, text: &str) {
        if self.interactive {
            output::note(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_questions() {
        let cases = [
            (" \r\n", Line::Nothing),
            (" What is 1/2?\n", Line::Question("What is 1/2?")),
            ("/image  my cat.png \n", Line::Image(Path::new("my cat.png"))),
            ("/save a.json", Line::Save(Path::new("a.json"))),
            ("/reset\n", Line::Reset),
            ("/help", Line::Help),
            ("/quit", Line::Quit),
        ];
        for (text, line) in cases {
            assert_eq!(Line::parse(text).unwrap(), line);
        }
    }

    #[test]
    fn commands_that_make_no_sense_are_explained() {
        for (text, reason) in [
            ("/image", "/image needs the name of a file"),
            ("/save \n", "/save needs the name of a file"),
            ("/reset now", "/reset stands alone"),
            ("/exit", "there is no command /exit; /help lists them"),
        ] {
            assert!(matches!(Line::parse(text), Err(Failure::Run(r)) if r == reason), "{text}");
        }
    }
}
